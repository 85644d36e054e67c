#ifndef MNEME_ENGINE_TOKENIZER_VOCABULARY_H_
#define MNEME_ENGINE_TOKENIZER_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace mneme {

// The tokens of a tokenizer by id and by spelling. Immutable; any number of threads.
class Vocabulary {
 public:
  // INVALID_ARGUMENT if an id is negative, beyond 4,194,303 or given to two tokens, or if a token
  // is listed with two ids.
  static absl::StatusOr<Vocabulary> Create(const TokenizerSpec& spec);

  // The largest id + 1.
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }

  // What the token stands for: bytes, or an added token's content. Empty for an id that no token
  // has. Valid as long as the vocabulary.
  absl::string_view TokenBytes(int32_t id) const;

  // Whether the id is that of an added token flagged special.
  bool IsSpecial(int32_t id) const;

  // The id of the token spelled so in tokenizer.json (in the byte-level alphabet).
  std::optional<int32_t> Find(absl::string_view spelling) const;

 private:
  struct Token {
    uint32_t offset = 0;
    uint32_t length = 0;
    bool used = false;
    bool special = false;
  };

  absl::Status Add(absl::string_view spelling, int64_t id, absl::string_view bytes);
  absl::Status AddContent(const TokenizerSpec::AddedToken& added);
  absl::string_view TokenBytes(const Token& token) const;

  std::vector<Token> tokens_;  // by id
  std::string bytes_;          // of all tokens
  absl::flat_hash_map<std::string, int32_t> ids_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_VOCABULARY_H_
