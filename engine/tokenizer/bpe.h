#ifndef MNEME_ENGINE_TOKENIZER_BPE_H_
#define MNEME_ENGINE_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer_spec.h"
#include "engine/tokenizer/vocabulary.h"

namespace mneme {

// Byte pair encoding: a piece begins as its bytes, and the pair of neighbours whose merge ranks
// best, leftmost first, becomes one token until no pair merges. Immutable; any number of threads.
// No special token ever comes out.
class Bpe {
 public:
  // INVALID_ARGUMENT if a byte has no token, a merge names a token that is not in the vocabulary,
  // or a byte or merge gives a special token.
  static absl::StatusOr<Bpe> Create(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // Appends to `ids` the tokens of each of `pieces`. Time is n log n and memory linear in the
  // longest piece, whatever its bytes. A piece has less than 2³¹ bytes.
  void Encode(const std::vector<absl::string_view>& pieces, std::vector<int32_t>* ids) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;  // of the token that the pair becomes
  };
  class Piece;  // one piece while its pairs merge

  absl::Status AddMerge(const std::pair<std::string, std::string>& pair, uint32_t rank,
                        const Vocabulary& vocabulary);
  const Merge* FindMerge(int32_t left, int32_t right) const;

  std::array<int32_t, 256> byte_ids_{};
  absl::flat_hash_map<uint64_t, Merge> merges_;          // by left id · 2³² + right id
  absl::flat_hash_map<std::string, int32_t> whole_ids_;  // by bytes; only with ignore_merges
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_BPE_H_
