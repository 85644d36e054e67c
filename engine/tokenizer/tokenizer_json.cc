#include "engine/tokenizer/tokenizer_json.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "engine/tokenizer/json_reader.h"
#include "engine/tokenizer/pretokenizer.h"
#include "engine/tokenizer/quoted.h"

namespace mneme {
namespace {

using Json = nlohmann::json;

absl::Status Unsupported(absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(what, " is not supported"));
}

// Refuses a flag that is set.
absl::Status RequireFalse(const Json& object, const std::string& name, bool fallback,
                          absl::string_view where) {
  MNEME_ASSIGN_OR_RETURN(const bool value, BoolMember(object, name, fallback, where));
  return value ? Unsupported(absl::StrCat(where, ".", name, " = true")) : absl::OkStatus();
}

// Refuses a value other than null, "" and 0.
absl::Status RequireUnset(const Json& object, const std::string& name, absl::string_view where) {
  MNEME_ASSIGN_OR_RETURN(const Json* value, Member(object, name, where));
  const bool blank = value->is_string() && value->get_ref<const std::string&>().empty();
  const bool unset = value->is_null() || blank || *value == 0;
  return unset ? absl::OkStatus() : Unsupported(absl::StrCat(where, ".", name));
}

absl::StatusOr<int64_t> Id(const Json& value, absl::string_view token) {
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the id of token ", Quoted(token), " must be an integer below 2^63"));
  }
  return value.get<int64_t>();
}

// A merge is "a b" in older files and ["a", "b"] in newer ones.
absl::StatusOr<std::pair<std::string, std::string>> Merge(const Json& value, size_t rank) {
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    return std::pair(value[0].get<std::string>(), value[1].get<std::string>());
  }
  if (value.is_string()) {
    const std::vector<std::string> parts = absl::StrSplit(value.get_ref<const std::string&>(), ' ');
    if (parts.size() == 2) return std::pair(parts[0], parts[1]);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("model.merges[", rank, "] is not a pair of tokens"));
}

absl::Status ReadVocab(const Json& model, TokenizerSpec* spec) {
  MNEME_ASSIGN_OR_RETURN(const Json* vocab, ObjectMember(model, "vocab", "model"));
  spec->vocab.reserve(vocab->size());
  for (const auto& [spelling, value] : vocab->items()) {
    MNEME_ASSIGN_OR_RETURN(const int64_t id, Id(value, spelling));
    spec->vocab.push_back({spelling, id});
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const Json& model, TokenizerSpec* spec) {
  MNEME_ASSIGN_OR_RETURN(const Json* merges, ArrayMember(model, "merges", "model"));
  spec->merges.reserve(merges->size());
  for (const Json& value : *merges) {
    MNEME_ASSIGN_OR_RETURN(auto merge, Merge(value, spec->merges.size()));
    spec->merges.push_back(std::move(merge));
  }
  return absl::OkStatus();
}

// `unk_token` may be what it likes: every byte has a token, so none is ever unknown.
absl::Status ReadModel(const Json& file, TokenizerSpec* spec) {
  MNEME_ASSIGN_OR_RETURN(const Json* model, ObjectMember(file, "model", "tokenizer"));
  MNEME_ASSIGN_OR_RETURN(const std::string type, StringMember(*model, "type", "model"));
  if (type != "BPE") return Unsupported(absl::StrCat("model.type ", Quoted(type)));
  MNEME_RETURN_IF_ERROR(RequireUnset(*model, "dropout", "model"));
  MNEME_RETURN_IF_ERROR(RequireUnset(*model, "continuing_subword_prefix", "model"));
  MNEME_RETURN_IF_ERROR(RequireUnset(*model, "end_of_word_suffix", "model"));
  MNEME_RETURN_IF_ERROR(RequireFalse(*model, "byte_fallback", false, "model"));
  MNEME_ASSIGN_OR_RETURN(spec->ignore_merges, BoolMember(*model, "ignore_merges", false, "model"));
  MNEME_RETURN_IF_ERROR(ReadVocab(*model, spec));
  return ReadMerges(*model, spec);
}

absl::StatusOr<TokenizerSpec::AddedToken> AddedToken(const Json& value) {
  constexpr absl::string_view kWhere = "added_tokens[]";
  TokenizerSpec::AddedToken token;
  MNEME_ASSIGN_OR_RETURN(token.content, StringMember(value, "content", kWhere));
  MNEME_ASSIGN_OR_RETURN(const Json* id, Member(value, "id", kWhere));
  MNEME_ASSIGN_OR_RETURN(token.id, Id(*id, token.content));
  MNEME_ASSIGN_OR_RETURN(token.special, BoolMember(value, "special", false, kWhere));
  MNEME_ASSIGN_OR_RETURN(token.normalized, BoolMember(value, "normalized", !token.special, kWhere));
  const std::string where = absl::StrCat("added token ", Quoted(token.content));
  MNEME_RETURN_IF_ERROR(RequireFalse(value, "single_word", false, where));
  MNEME_RETURN_IF_ERROR(RequireFalse(value, "lstrip", false, where));
  MNEME_RETURN_IF_ERROR(RequireFalse(value, "rstrip", false, where));
  return token;
}

absl::Status ReadAddedTokens(const Json& file, TokenizerSpec* spec) {
  MNEME_ASSIGN_OR_RETURN(const Json* tokens, Member(file, "added_tokens", "tokenizer"));
  if (tokens->is_null()) return absl::OkStatus();
  MNEME_ASSIGN_OR_RETURN(tokens, ArrayMember(file, "added_tokens", "tokenizer"));
  for (const Json& value : *tokens) {
    MNEME_ASSIGN_OR_RETURN(TokenizerSpec::AddedToken token, AddedToken(value));
    spec->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// A component or the components of a Sequence, whose member is called `list`; none for null.
absl::StatusOr<std::vector<const Json*>> Components(const Json& file, const std::string& name,
                                                    const std::string& list) {
  MNEME_ASSIGN_OR_RETURN(const Json* component, Member(file, name, "tokenizer"));
  if (component->is_null()) return std::vector<const Json*>();
  MNEME_ASSIGN_OR_RETURN(const std::string type, StringMember(*component, "type", name));
  if (type != "Sequence") return std::vector<const Json*>{component};
  MNEME_ASSIGN_OR_RETURN(const Json* items, ArrayMember(*component, list, name));
  std::vector<const Json*> components;
  for (const Json& item : *items) components.push_back(&item);
  return components;
}

absl::Status ReadNormalizer(const Json& file, TokenizerSpec* spec) {
  MNEME_ASSIGN_OR_RETURN(const auto components, Components(file, "normalizer", "normalizers"));
  for (const Json* component : components) {
    MNEME_ASSIGN_OR_RETURN(const std::string type, StringMember(*component, "type", "normalizer"));
    if (type != "NFC") return Unsupported(absl::StrCat("normalizer ", Quoted(type)));
    spec->nfc = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SplitRegex(const Json& split) {
  constexpr absl::string_view kWhere = "pre_tokenizer Split";
  MNEME_ASSIGN_OR_RETURN(const Json* pattern, ObjectMember(split, "pattern", kWhere));
  MNEME_ASSIGN_OR_RETURN(const std::string behavior, StringMember(split, "behavior", kWhere));
  if (behavior != "Isolated") {
    return Unsupported(absl::StrCat(kWhere, ".behavior ", Quoted(behavior)));
  }
  MNEME_RETURN_IF_ERROR(RequireFalse(split, "invert", false, kWhere));
  if (pattern->contains("String")) return Unsupported(absl::StrCat(kWhere, ".pattern.String"));
  return StringMember(*pattern, "Regex", "pre_tokenizer Split.pattern");
}

absl::Status ReadPreTokenizer(const Json& file, TokenizerSpec* spec) {
  MNEME_ASSIGN_OR_RETURN(const auto components, Components(file, "pre_tokenizer", "pretokenizers"));
  bool byte_level = false;
  for (const Json* component : components) {
    constexpr absl::string_view kWhere = "pre_tokenizer";
    MNEME_ASSIGN_OR_RETURN(const std::string type, StringMember(*component, "type", kWhere));
    if (byte_level) return Unsupported(absl::StrCat(kWhere, " ", Quoted(type), " after ByteLevel"));
    if (type == "Split") {
      MNEME_ASSIGN_OR_RETURN(std::string regex, SplitRegex(*component));
      spec->split_regexes.push_back(std::move(regex));
    } else if (type == "Digits") {
      MNEME_ASSIGN_OR_RETURN(const bool individual,
                             BoolMember(*component, "individual_digits", false, kWhere));
      spec->split_regexes.emplace_back(individual ? R"(\p{N})" : R"(\p{N}+)");
    } else if (type == "ByteLevel") {
      byte_level = true;
      MNEME_RETURN_IF_ERROR(RequireFalse(*component, "add_prefix_space", true, kWhere));
      MNEME_ASSIGN_OR_RETURN(const bool use_regex,
                             BoolMember(*component, "use_regex", true, kWhere));
      if (use_regex) spec->split_regexes.emplace_back(kGpt2Regex);
    } else {
      return Unsupported(absl::StrCat(kWhere, " ", Quoted(type)));
    }
  }
  return byte_level ? absl::OkStatus() : Unsupported("a pre_tokenizer without ByteLevel");
}

absl::Status ReadDecoder(const Json& file) {
  MNEME_ASSIGN_OR_RETURN(const Json* decoder, ObjectMember(file, "decoder", "tokenizer"));
  MNEME_ASSIGN_OR_RETURN(const std::string type, StringMember(*decoder, "type", "decoder"));
  return type == "ByteLevel" ? absl::OkStatus()
                             : Unsupported(absl::StrCat("decoder ", Quoted(type)));
}

// The template of a single text: [one special token,] the text.
absl::Status ReadTemplate(const Json& processor, TokenizerSpec* spec) {
  constexpr absl::string_view kWhere = "post_processor TemplateProcessing";
  MNEME_ASSIGN_OR_RETURN(const Json* single, ArrayMember(processor, "single", kWhere));
  const size_t size = single->size();
  const bool ends_in_text =
      size > 0 && single->back().is_object() && single->back().contains("Sequence");
  if (size > 2 || !ends_in_text) {
    return Unsupported(absl::StrCat(kWhere, " other than a text, or one token and a text"));
  }
  if (size == 1) return absl::OkStatus();
  MNEME_ASSIGN_OR_RETURN(const Json* token, ObjectMember(single->front(), "SpecialToken", kWhere));
  MNEME_ASSIGN_OR_RETURN(spec->bos_token, StringMember(*token, "id", kWhere));
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const Json& file, TokenizerSpec* spec) {
  MNEME_ASSIGN_OR_RETURN(const auto components, Components(file, "post_processor", "processors"));
  for (const Json* component : components) {
    MNEME_ASSIGN_OR_RETURN(const std::string type,
                           StringMember(*component, "type", "post_processor"));
    if (type == "TemplateProcessing") {
      MNEME_RETURN_IF_ERROR(ReadTemplate(*component, spec));
    } else if (type != "ByteLevel") {
      return Unsupported(absl::StrCat("post_processor ", Quoted(type)));
    }
  }
  return absl::OkStatus();
}

// `bos_token` is a string, or an object with the string as its `content`.
absl::Status ReadConfig(const Json& config, TokenizerSpec* spec) {
  constexpr absl::string_view kWhere = "tokenizer_config";
  MNEME_ASSIGN_OR_RETURN(const bool add_bos, BoolMember(config, "add_bos_token", false, kWhere));
  if (!add_bos || spec->bos_token.has_value()) return absl::OkStatus();
  MNEME_ASSIGN_OR_RETURN(const Json* bos, Member(config, "bos_token", kWhere));
  if (bos->is_object()) {
    MNEME_ASSIGN_OR_RETURN(spec->bos_token, StringMember(*bos, "content", "bos_token"));
  } else {
    MNEME_ASSIGN_OR_RETURN(spec->bos_token, StringMember(config, "bos_token", kWhere));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view tokenizer_json,
                                                 absl::string_view tokenizer_config_json) {
  TokenizerSpec spec;
  MNEME_ASSIGN_OR_RETURN(const Json file, ParseJson(tokenizer_json));
  MNEME_RETURN_IF_ERROR(ReadModel(file, &spec));
  MNEME_RETURN_IF_ERROR(ReadAddedTokens(file, &spec));
  MNEME_RETURN_IF_ERROR(ReadNormalizer(file, &spec));
  MNEME_RETURN_IF_ERROR(ReadPreTokenizer(file, &spec));
  MNEME_RETURN_IF_ERROR(ReadDecoder(file));
  MNEME_RETURN_IF_ERROR(ReadPostProcessor(file, &spec));
  if (tokenizer_config_json.empty()) return spec;
  MNEME_ASSIGN_OR_RETURN(const Json config, ParseJson(tokenizer_config_json));
  MNEME_RETURN_IF_ERROR(ReadConfig(config, &spec));
  return spec;
}

}  // namespace mneme
