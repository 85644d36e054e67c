#ifndef MNEME_KERNELS_CPU_ATTENTION_TILE_H_
#define MNEME_KERNELS_CPU_ATTENTION_TILE_H_

// The inner loops of attention: a block of query vectors that share a key-value head meets a tile
// of keys and values, with the online softmax in between. Query vectors lie across SIMD lanes, so
// that scores and outputs are small matrix products held in registers, and softmax needs no
// reduction across lanes.

#include <cstdint>

namespace mneme {

inline constexpr int64_t kMaxBlockQueries = 128;
inline constexpr int64_t kTileKeys = 64;  // a multiple of 8

// A block's query vectors and the running state of their softmax. Matrices are transposed:
// [.., kMaxBlockQueries], one column for each query vector.
struct AttentionBlock {
  int64_t head_dim = 0;
  int64_t query_count = 0;      // at most kMaxBlockQueries
  float* queries = nullptr;     // [head_dim, kMaxBlockQueries], scaled
  float* keys = nullptr;        // [kTileKeys, head_dim], of the current tile
  float* values = nullptr;      // [kTileKeys, head_dim], of the current tile
  float* scores = nullptr;      // [kTileKeys, kMaxBlockQueries], of the current tile
  float* out = nullptr;         // [head_dim, kMaxBlockQueries], not yet divided by `sum`
  float* max = nullptr;         // [kMaxBlockQueries] largest score so far
  float* sum = nullptr;         // [kMaxBlockQueries] of exp(score − max)
  float* correction = nullptr;  // [kMaxBlockQueries] exp(old max − new max) of this tile
  int32_t* last_key = nullptr;  // [kMaxBlockQueries] the last key that the query sees
  int32_t window = 0;           // a query sees keys in (last_key − window, last_key]
};

// The floats that one block needs in all.
int64_t BlockFloats(int64_t head_dim);
// Lays a block's arrays into `memory` of BlockFloats, aligned to 64 bytes.
AttentionBlock PlaceBlock(float* memory, int64_t head_dim);

// Fills `queries` from query_count rows of head_dim floats, times `scale`, and empties the state.
void StartBlock(const float* const* rows, float scale, AttentionBlock& block);

// A tile's keys and values, copied together: in the cache, rows of a head lie so many bytes apart
// that they would push each other out of the first-level cache.
struct KeyValueTile {
  int64_t count = 0;      // at most kTileKeys
  int32_t first_key = 0;  // index of the first key, on the scale of last_key
  bool masked = false;    // whether some query does not see some of the tile
};

// Adds the tile, whose rows stand in block.keys and block.values, to the block's state.
void AttendTile(const KeyValueTile& tile, AttentionBlock& block);

// Adds the state of `other`, over the same queries and other keys, to `block`.
void MergeBlock(const AttentionBlock& other, AttentionBlock& block);

// Writes the finished outputs to query_count rows of head_dim floats.
void FinishBlock(const AttentionBlock& block, float* const* rows);

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_ATTENTION_TILE_H_
