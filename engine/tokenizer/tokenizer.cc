#include "engine/tokenizer/tokenizer.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tokenizer/json_reader.h"
#include "engine/tokenizer/nfc.h"
#include "engine/tokenizer/quoted.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "engine/tokenizer/utf8.h"

namespace mneme {
namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr size_t kMaxTextBytes = size_t{512} << 20;  // NFC may triple it; pieces are < 2^31

absl::Status WithPath(const absl::Status& status, const std::filesystem::path& path) {
  return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(
    const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "tokenizer.json";
  MNEME_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxFileBytes));
  absl::StatusOr<std::string> config = ReadFile(model_dir / "tokenizer_config.json", kMaxFileBytes);
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  auto tokenizer = FromJson(json, config.ok() ? *config : "");
  if (!tokenizer.ok()) return WithPath(tokenizer.status(), path);
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::FromJson(
    absl::string_view tokenizer_json, absl::string_view tokenizer_config_json) {
  MNEME_ASSIGN_OR_RETURN(const TokenizerSpec spec,
                         ParseTokenizerJson(tokenizer_json, tokenizer_config_json));
  return FromSpec(spec);
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::FromSpec(const TokenizerSpec& spec) {
  MNEME_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Create(spec));
  MNEME_ASSIGN_OR_RETURN(Bpe bpe, Bpe::Create(spec, vocabulary));
  MNEME_ASSIGN_OR_RETURN(PreTokenizer pretokenizer, PreTokenizer::Create(spec.split_regexes));
  std::unique_ptr<Tokenizer> tokenizer(
      new Tokenizer(std::move(vocabulary), std::move(bpe), std::move(pretokenizer)));
  tokenizer->nfc_ = spec.nfc;
  tokenizer->AddAddedTokens(spec);
  if (spec.bos_token.has_value()) {
    tokenizer->bos_id_ = tokenizer->TokenToId(*spec.bos_token);
    if (!tokenizer->bos_id_.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "texts are to begin with ", Quoted(*spec.bos_token), ", which is not in the vocabulary"));
    }
  }
  return tokenizer;
}

void Tokenizer::AddAddedTokens(const TokenizerSpec& spec) {
  for (const TokenizerSpec::AddedToken& token : spec.added_tokens) {
    const auto id = static_cast<int32_t>(token.id);
    if (token.normalized && nfc_) {
      normalized_added_.Add(NormalizeNfc(token.content), id, token.special);
    } else if (token.normalized) {
      normalized_added_.Add(token.content, id, token.special);
    } else {
      added_.Add(token.content, id, token.special);
    }
  }
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       bool parse_special) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", text.size(), " bytes, more than ", kMaxTextBytes));
  }
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
  std::vector<int32_t> ids;
  for (const AddedTokenFinder::Segment& segment : added_.Split(text, parse_special)) {
    if (segment.id.has_value()) {
      ids.push_back(*segment.id);
    } else {
      MNEME_RETURN_IF_ERROR(EncodeSegment(segment.text, parse_special, &ids));
    }
  }
  return ids;
}

absl::Status Tokenizer::EncodeSegment(absl::string_view text, bool parse_special,
                                      std::vector<int32_t>* ids) const {
  std::string normalized;
  if (nfc_) text = normalized = NormalizeNfc(text);
  for (const AddedTokenFinder::Segment& segment : normalized_added_.Split(text, parse_special)) {
    if (segment.id.has_value()) {
      ids->push_back(*segment.id);
      continue;
    }
    MNEME_ASSIGN_OR_RETURN(const auto pieces, pretokenizer_.Split(segment.text));
    bpe_.Encode(pieces, ids);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const int32_t> ids,
                                              bool include_special) const {
  std::string bytes;
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", id, " is not in the vocabulary 0..", vocab_size() - 1));
    }
    if (IsSpecial(id) && !include_special) continue;
    const absl::string_view token = TokenBytes(id);
    bytes.append(token.data(), token.size());
  }
  return Utf8Lossy(bytes);
}

}  // namespace mneme
