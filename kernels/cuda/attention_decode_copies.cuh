#ifndef MNEME_KERNELS_CUDA_ATTENTION_DECODE_COPIES_CUH_
#define MNEME_KERNELS_CUDA_ATTENTION_DECODE_COPIES_CUH_

// How keys and values come to shared memory in decode attention.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention_decode_work.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"

namespace mneme::cuda::decode {

// A slab in shared memory: keys [16, kHeadDim], then values. 16-byte pieces of a row are permuted
// by the row's number, so that neither copies nor matrix loads meet in a bank.
template <int kHeadDim>
inline constexpr int kSlabBytes = 2 * kSlabTokens* kHeadDim* static_cast<int>(sizeof(BFloat16));
template <int kHeadDim>
inline constexpr int kSlots = kHeadDim == 64 ? 6 : 3;  // of a warp
template <int kHeadDim>
inline constexpr int kRingBytes = kSlots<kHeadDim>* kSlabBytes<kHeadDim>;

// Where a 16-byte piece of a row stands in a slab's keys, and in its values.
template <int kHeadDim>
__device__ __forceinline__ uint32_t Place(int row, int piece) {
  return static_cast<uint32_t>((row * (kHeadDim / 8) + (piece ^ (row % 8))) * 16);
}

// A warp's slabs, every kWarps-th of the block's share whatever segments they are of, copied ahead
// of their turn. One slot is always free between two Take()s.
template <int kHeadDim>
class SlabRing {
 public:
  // Begins the first copies. Older tokens were stored in earlier steps, so only the copies of the
  // newest wait for the kernel in front, which stores them, unless it is made here.
  __device__ SlabRing(const DecodeArguments& args, const int32_t* pages, const Line& line,
                      const Share& share, char* slots)
      : args_(args),
        pages_(pages),
        line_(line),
        first_(share.first),
        slots_(slots),
        lane_(static_cast<int>(threadIdx.x) % 32),
        end_(share.end),
        taken_(share.begin + static_cast<int>(threadIdx.x) / 32),
        started_(taken_) {
    for (int slot = 0; slot < kSlots<kHeadDim> - 1; ++slot) StartNext(slot);
  }

  // The next slab's place in the line, whether there is one or not.
  __device__ int next() const { return taken_; }
  // Waits for the next slab and gives its slot, which stays until the call after.
  __device__ uint32_t Take() {
    WaitForCopies<kSlots<kHeadDim> - 2>();
    __syncwarp();  // all lanes' copies are there, and all have left the free slot
    StartNext(free_);
    free_ = free_ + 1 == kSlots<kHeadDim> ? 0 : free_ + 1;
    taken_ += kWarps;
    return SharedAddress(Slot(free_));
  }
  // Of kSlabBytes.
  __device__ char* free_slot() const { return Slot(free_); }

 private:
  static constexpr int kPieces = kHeadDim / 8;  // of 16 bytes in a row

  __device__ char* Slot(int slot) const { return slots_ + slot * kSlabBytes<kHeadDim>; }

  // Each lane finds one of the warp's next 32 slabs.
  __device__ void FindSlabs() {
    const int position = started_ + lane_ * kWarps;
    if (position >= end_) return;
    const Segment segment = position < first_.end ? first_ : line_.SegmentAt(args_, position);
    const int token = segment.Token(position), table_page = Quotient(token, args_.page_tokens);
    const int page = pages_[line_.first_page[segment.sequence] + table_page];
    keys_ = args_.kv + page * args_.page_stride +
            (token - table_page * args_.page_tokens) * token_stride() + segment.head * kHeadDim;
    first_row_ = segment.span.first - token;
    end_row_ = segment.span.end - token;
  }

  // A group of copies is committed in any case, so that their number tells the slab.
  __device__ void StartNext(int slot) {
    if (started_ < end_) {
      if (found_ % 32 == 0) FindSlabs();
      const auto* const keys = reinterpret_cast<const BFloat16*>(
          __shfl_sync(~0u, reinterpret_cast<uint64_t>(keys_), found_ % 32));
      const int first_row = __shfl_sync(~0u, first_row_, found_ % 32);
      int end_row = __shfl_sync(~0u, end_row_, found_ % 32);
      if (end_row <= kSlabTokens) {
        if (args_.rotation.rope == nullptr) {
          WaitForPrior();
        } else {
          --end_row;
        }
      }
      Copy(keys, first_row, end_row, SharedAddress(Slot(slot)));
      ++found_;
      started_ += kWarps;
    }
    CommitCopies();
  }

  // Zeros for rows that the sequence does not see.
  __device__ void Copy(const BFloat16* keys, int first_row, int end_row, uint32_t to) const {
    const int64_t values = args_.page_tokens * token_stride();
    const int piece = lane_ % kPieces;
#pragma unroll
    for (int i = 0; i < kSlabTokens * kPieces / 32; ++i) {
      const int row = i * (32 / kPieces) + lane_ / kPieces;
      const bool seen = row >= first_row && row < end_row;
      const BFloat16* const key = keys + (seen ? row * token_stride() : 0) + piece * 8;
      const uint32_t place = to + Place<kHeadDim>(row, piece);
      CopyAsync16(place, key, seen);
      CopyAsync16(place + kSlabBytes<kHeadDim> / 2, key + values, seen);
    }
  }

  __device__ int64_t token_stride() const { return int64_t{args_.kv_heads} * kHeadDim; }

  const DecodeArguments& args_;
  const int32_t* const pages_;
  const Line& line_;
  const Segment& first_;  // the block's
  char* const slots_;
  const int lane_;
  const int end_;
  int taken_, started_;  // places in the line of the slabs that are taken and copied next
  int free_ = kSlots<kHeadDim> - 1;  // slot, and that of the slab taken last
  int found_ = 0;                    // slabs started
  const BFloat16* keys_ = nullptr;   // of the lane's slab: its first row,
  int first_row_ = 0, end_row_ = 0;  // and which rows the sequence sees, or beyond it
};

}  // namespace mneme::cuda::decode

#endif  // MNEME_KERNELS_CUDA_ATTENTION_DECODE_COPIES_CUH_
