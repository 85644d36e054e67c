#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <cstddef>
#include <functional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/quoted.h"

namespace mneme {
namespace {

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

absl::StatusOr<int32_t> OrdinaryToken(const std::string& spelling, const Vocabulary& vocabulary,
                                      absl::string_view what) {
  const std::optional<int32_t> id = vocabulary.Find(spelling);
  if (!id.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " needs the token ", Quoted(spelling),
                                                   ", which is not in the vocabulary"));
  }
  if (vocabulary.IsSpecial(*id)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " would turn ordinary text into the special token ", Quoted(spelling)));
  }
  return *id;
}

}  // namespace

// A linked list of symbols in a vector, and a heap of the places where a merge may apply. An entry
// whose pair has changed since stays in the heap; it is known by the rank, for a pair that grew at
// one of its ends never merges into the same token.
class Bpe::Piece {
 public:
  explicit Piece(const Bpe& bpe) : bpe_(bpe) {}

  // Appends the tokens of `piece`, which is not empty.
  void Encode(absl::string_view piece, std::vector<int32_t>* ids) {
    Start(piece);
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const uint64_t best = heap_.back();
      heap_.pop_back();
      const auto at = static_cast<int32_t>(best & UINT32_MAX);
      const Merge* merge = MergeAt(at);
      if (merge != nullptr && merge->rank == best >> 32) Apply(at, merge->id);
    }
    for (int32_t at = 0; at != kNone; at = Symbol(at).next) ids->push_back(Symbol(at).id);
  }

 private:
  static constexpr int32_t kNone = -1;

  struct Node {
    int32_t id;  // kNone: merged into the symbol on its left
    int32_t previous;
    int32_t next;
  };
  Node& Symbol(int32_t at) { return symbols_[static_cast<size_t>(at)]; }

  void Start(absl::string_view piece) {
    const auto size = static_cast<int32_t>(piece.size());
    symbols_.clear();
    heap_.clear();
    for (int32_t i = 0; i < size; ++i) {
      const auto byte = static_cast<uint8_t>(piece[static_cast<size_t>(i)]);
      symbols_.push_back({bpe_.byte_ids_[byte], i - 1, i + 1 < size ? i + 1 : kNone});
    }
    for (int32_t i = 0; i < size; ++i) Append(i);
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  // The merge of the symbol at `left` and the one after it; null if there is none.
  const Merge* MergeAt(int32_t left) {
    if (left == kNone || Symbol(left).id == kNone || Symbol(left).next == kNone) return nullptr;
    return bpe_.FindMerge(Symbol(left).id, Symbol(Symbol(left).next).id);
  }

  // Appends the merge at `left`, if there is one, behind the heap.
  bool Append(int32_t left) {
    const Merge* merge = MergeAt(left);
    if (merge == nullptr) return false;
    heap_.push_back(uint64_t{merge->rank} << 32 | static_cast<uint32_t>(left));
    return true;
  }

  void Push(int32_t left) {
    if (Append(left)) std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  // Makes the symbol at `at` and the one after it the token `id`.
  void Apply(int32_t at, int32_t id) {
    Node& left = Symbol(at);
    Node& right = Symbol(left.next);
    left.id = id;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) Symbol(left.next).previous = at;
    Push(left.previous);
    Push(at);
  }

  const Bpe& bpe_;
  std::vector<Node> symbols_;
  std::vector<uint64_t> heap_;  // rank · 2³² + place of the left symbol; the least first
};

absl::StatusOr<Bpe> Bpe::Create(const TokenizerSpec& spec, const Vocabulary& vocabulary) {
  Bpe bpe;
  for (size_t byte = 0; byte < 256; ++byte) {
    MNEME_ASSIGN_OR_RETURN(bpe.byte_ids_[byte],
                           OrdinaryToken(SpellingOfByte(static_cast<uint8_t>(byte)), vocabulary,
                                         absl::StrCat("byte ", byte)));
  }
  uint32_t rank = 0;
  for (const auto& pair : spec.merges) {
    MNEME_RETURN_IF_ERROR(bpe.AddMerge(pair, rank++, vocabulary));
  }
  if (!spec.ignore_merges) return bpe;
  for (const TokenizerSpec::VocabToken& token : spec.vocab) {
    const auto id = static_cast<int32_t>(token.id);
    std::optional<std::string> bytes = BytesOfSpelling(token.spelling);
    if (bytes.has_value() && !vocabulary.IsSpecial(id)) bpe.whole_ids_.emplace(*bytes, id);
  }
  return bpe;
}

absl::Status Bpe::AddMerge(const std::pair<std::string, std::string>& pair, uint32_t rank,
                           const Vocabulary& vocabulary) {
  const std::string what = absl::StrCat("merge ", rank);
  MNEME_ASSIGN_OR_RETURN(const int32_t left, OrdinaryToken(pair.first, vocabulary, what));
  MNEME_ASSIGN_OR_RETURN(const int32_t right, OrdinaryToken(pair.second, vocabulary, what));
  MNEME_ASSIGN_OR_RETURN(const int32_t merged,
                         OrdinaryToken(pair.first + pair.second, vocabulary, what));
  merges_.insert_or_assign(PairKey(left, right), Merge{rank, merged});
  return absl::OkStatus();
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::Encode(const std::vector<absl::string_view>& pieces, std::vector<int32_t>* ids) const {
  Piece workspace(*this);
  for (absl::string_view piece : pieces) {
    const auto whole = whole_ids_.find(piece);
    if (whole != whole_ids_.end()) {
      ids->push_back(whole->second);
    } else {
      workspace.Encode(piece, ids);
    }
  }
}

}  // namespace mneme
