#ifndef MNEME_ENGINE_TOKENIZER_ADDED_TOKENS_H_
#define MNEME_ENGINE_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace mneme {

// Finds added tokens in text: leftmost first, of those the longest, without overlap. Immutable; any
// number of threads.
class AddedTokenFinder {
 public:
  // Text up to an added token or the end, or (id set) an added token.
  struct Segment {
    absl::string_view text;
    std::optional<int32_t> id;
  };

  // Adds a token to look for. An empty one is never found. `special` says whether it is found only
  // when special tokens are asked for.
  void Add(absl::string_view content, int32_t id, bool special);

  // `text` cut at the added tokens in it. Without `parse_special` a special token's spelling stays
  // part of the text around it, as does a token inside that spelling.
  std::vector<Segment> Split(absl::string_view text, bool parse_special) const;

 private:
  struct Token {
    int32_t id;
    bool special;
  };
  struct Match {
    size_t length = 0;  // 0: none
    Token token{};
  };

  Match LongestAt(absl::string_view text) const;

  // A trie: edges by node · 256 + byte; node 0 is the root.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  absl::flat_hash_map<uint32_t, Token> tokens_;  // by the node where they end
  std::array<bool, 256> begins_{};               // bytes with which a token begins
  uint32_t nodes_ = 1;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_ADDED_TOKENS_H_
