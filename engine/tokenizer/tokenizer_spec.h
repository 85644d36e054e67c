#ifndef MNEME_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_
#define MNEME_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mneme {

// What tokenizer.json and tokenizer_config.json say, as far as it is supported. Types and structure
// are checked; that ids, merges and patterns fit together is not.
struct TokenizerSpec {
  struct VocabToken {
    std::string spelling;  // in the byte-level alphabet
    int64_t id;
  };
  struct AddedToken {
    std::string content;
    int64_t id;
    bool special;
    bool normalized;  // looked for in the normalized text
  };

  std::vector<VocabToken> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // best first, byte-level alphabet
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges
  std::vector<AddedToken> added_tokens;
  bool nfc = false;
  std::vector<std::string> split_regexes;  // applied one after the other
  std::optional<std::string> bos_token;    // only if texts begin with one
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_
