#include "engine/tokenizer/json_reader.h"

#include <fstream>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 64;

const Json kNull;

// Whether brackets nest at most kMaxDepth deep. Strings are skipped; whether the rest is JSON is
// the parser's question.
bool IsShallow(absl::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') {
      ++i;
    } else if (c == '"') {
      in_string = !in_string;
    } else if (!in_string && (c == '[' || c == '{')) {
      if (++depth > kMaxDepth) return false;
    } else if (!in_string && (c == ']' || c == '}')) {
      --depth;
    }
  }
  return true;
}

absl::Status WrongType(absl::string_view where, const std::string& name, absl::string_view wanted,
                       const Json& value) {
  return absl::InvalidArgumentError(
      absl::StrCat(where, ".", name, value.is_null() ? " is missing" : " has the wrong type",
                   "; it must be ", wanted));
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text) {
  if (!IsShallow(text)) {
    return absl::InvalidArgumentError(absl::StrCat("it nests deeper than ", kMaxDepth, " levels"));
  }
  Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("it is not valid JSON, or is cut off");
  return json;
}

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat("there is no file ", path.string()));
  }
  const auto size = std::filesystem::file_size(path, error);
  if (error || size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), " cannot be read or is larger than ", max_bytes, " bytes"));
  }
  std::string content(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(content.data(), static_cast<std::streamsize>(size))) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " cannot be read"));
  }
  return content;
}

absl::StatusOr<const Json*> Member(const Json& object, const std::string& name,
                                   absl::string_view where) {
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, " must be an object"));
  }
  const auto member = object.find(name);
  return member == object.end() ? &kNull : &*member;
}

absl::StatusOr<const Json*> ObjectMember(const Json& object, const std::string& name,
                                         absl::string_view where) {
  MNEME_ASSIGN_OR_RETURN(const Json* member, Member(object, name, where));
  if (!member->is_object()) return WrongType(where, name, "an object", *member);
  return member;
}

absl::StatusOr<const Json*> ArrayMember(const Json& object, const std::string& name,
                                        absl::string_view where) {
  MNEME_ASSIGN_OR_RETURN(const Json* member, Member(object, name, where));
  if (!member->is_array()) return WrongType(where, name, "an array", *member);
  return member;
}

absl::StatusOr<std::string> StringMember(const Json& object, const std::string& name,
                                         absl::string_view where) {
  MNEME_ASSIGN_OR_RETURN(const Json* member, Member(object, name, where));
  if (!member->is_string()) return WrongType(where, name, "a string", *member);
  return member->get_ref<const std::string&>();
}

absl::StatusOr<bool> BoolMember(const Json& object, const std::string& name, bool fallback,
                                absl::string_view where) {
  MNEME_ASSIGN_OR_RETURN(const Json* member, Member(object, name, where));
  if (member->is_null()) return fallback;
  if (!member->is_boolean()) return WrongType(where, name, "true or false", *member);
  return member->get<bool>();
}

}  // namespace mneme
