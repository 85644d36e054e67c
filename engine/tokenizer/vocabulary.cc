#include "engine/tokenizer/vocabulary.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/quoted.h"

namespace mneme {
namespace {

constexpr int64_t kMaxTokens = 1 << 22;  // keeps a hostile id from claiming gigabytes

}  // namespace

absl::StatusOr<Vocabulary> Vocabulary::Create(const TokenizerSpec& spec) {
  Vocabulary vocabulary;
  for (const TokenizerSpec::VocabToken& token : spec.vocab) {
    const std::optional<std::string> bytes = BytesOfSpelling(token.spelling);
    MNEME_RETURN_IF_ERROR(
        vocabulary.Add(token.spelling, token.id, bytes.has_value() ? *bytes : token.spelling));
  }
  for (const TokenizerSpec::AddedToken& token : spec.added_tokens) {
    MNEME_RETURN_IF_ERROR(vocabulary.AddContent(token));
  }
  return vocabulary;
}

absl::Status Vocabulary::Add(absl::string_view spelling, int64_t id, absl::string_view bytes) {
  if (id < 0 || id >= kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat("token ", Quoted(spelling), " has id ", id,
                                                   ", which is not in 0..", kMaxTokens - 1));
  }
  const auto index = static_cast<size_t>(id);
  if (index >= tokens_.size()) tokens_.resize(index + 1);
  Token& token = tokens_[index];
  if (token.used) {
    return absl::InvalidArgumentError(absl::StrCat("tokens ", Quoted(TokenBytes(token)), " and ",
                                                   Quoted(bytes), " both have id ", id));
  }
  token = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(bytes.size()), true, false};
  bytes_.append(bytes.data(), bytes.size());
  ids_.emplace(std::string(spelling), static_cast<int32_t>(id));
  return absl::OkStatus();
}

absl::Status Vocabulary::AddContent(const TokenizerSpec::AddedToken& added) {
  const std::optional<int32_t> known = Find(added.content);
  if (!known.has_value()) {
    MNEME_RETURN_IF_ERROR(Add(added.content, added.id, added.content));
  } else if (*known != added.id) {
    return absl::InvalidArgumentError(
        absl::StrCat("token ", Quoted(added.content), " has the ids ", *known, " and ", added.id));
  }
  if (added.special) tokens_[static_cast<size_t>(added.id)].special = true;
  return absl::OkStatus();
}

absl::string_view Vocabulary::TokenBytes(const Token& token) const {
  return absl::string_view(bytes_).substr(token.offset, token.length);
}

absl::string_view Vocabulary::TokenBytes(int32_t id) const {
  return id >= 0 && id < size() ? TokenBytes(tokens_[static_cast<size_t>(id)])
                                : absl::string_view();
}

bool Vocabulary::IsSpecial(int32_t id) const {
  return id >= 0 && id < size() && tokens_[static_cast<size_t>(id)].special;
}

std::optional<int32_t> Vocabulary::Find(absl::string_view spelling) const {
  const auto found = ids_.find(spelling);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace mneme
