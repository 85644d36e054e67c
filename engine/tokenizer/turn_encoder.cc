#include "engine/tokenizer/turn_encoder.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "engine/tokenizer/quoted.h"

namespace mneme {

absl::StatusOr<TurnEncoder> TurnEncoder::Create(const Tokenizer& tokenizer,
                                                const TurnFormat& format) {
  TurnEncoder encoder(tokenizer);
  for (const auto& [name, text] : format.roles) {
    Role& role = encoder.roles_[name];
    MNEME_ASSIGN_OR_RETURN(role.prefix, tokenizer.Encode(text.prefix, /*parse_special=*/true));
    MNEME_ASSIGN_OR_RETURN(role.suffix, tokenizer.Encode(text.suffix, /*parse_special=*/true));
  }
  if (!encoder.roles_.contains("assistant")) {
    return absl::InvalidArgumentError(
        absl::StrCat("turn format ", Quoted(format.name), " lacks the role \"assistant\""));
  }
  return encoder;
}

absl::StatusOr<std::vector<int32_t>> TurnEncoder::EncodeMessage(absl::string_view role,
                                                                absl::string_view content,
                                                                bool parse_special) const {
  const auto found = roles_.find(std::string(role));
  if (found == roles_.end()) {
    const auto name = [](std::string* out, const auto& known) { out->append(known.first); };
    return absl::InvalidArgumentError(absl::StrCat("there is no role ", Quoted(role),
                                                   "; the known ones are ",
                                                   absl::StrJoin(roles_, ", ", name)));
  }
  std::vector<int32_t> ids = found->second.prefix;
  MNEME_ASSIGN_OR_RETURN(const std::vector<int32_t> body,
                         tokenizer_->Encode(content, parse_special));
  ids.insert(ids.end(), body.begin(), body.end());
  ids.insert(ids.end(), found->second.suffix.begin(), found->second.suffix.end());
  return ids;
}

}  // namespace mneme
