#ifndef MNEME_ENGINE_TOKENIZER_TURN_ENCODER_H_
#define MNEME_ENGINE_TOKENIZER_TURN_ENCODER_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/turn_format.h"

namespace mneme {

// Encodes messages in a turn format. A role's prefix and suffix come from the operator, so the
// special tokens in them are parsed; prefix, content and suffix are tokenized each by itself, so no
// content can change the tokens around it. Immutable; any number of threads; the tokenizer must
// outlive it.
class TurnEncoder {
 public:
  // Encodes the prefixes and suffixes of `format`. INVALID_ARGUMENT if one is not valid UTF-8.
  static absl::StatusOr<TurnEncoder> Create(const Tokenizer& tokenizer, const TurnFormat& format);

  // Prefix, content and suffix of one message. `parse_special` is about the content alone.
  // INVALID_ARGUMENT, naming the known roles, for another one; statuses of Tokenizer::Encode.
  absl::StatusOr<std::vector<int32_t>> EncodeMessage(absl::string_view role,
                                                     absl::string_view content,
                                                     bool parse_special) const;

  // What opens and what ends a turn of the assistant. Valid as long as the encoder.
  const std::vector<int32_t>& assistant_prefix() const { return assistant().prefix; }
  const std::vector<int32_t>& assistant_suffix() const { return assistant().suffix; }

 private:
  struct Role {
    std::vector<int32_t> prefix;
    std::vector<int32_t> suffix;
  };

  explicit TurnEncoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  const Role& assistant() const { return roles_.at("assistant"); }

  const Tokenizer* tokenizer_;
  std::map<std::string, Role> roles_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_TURN_ENCODER_H_
