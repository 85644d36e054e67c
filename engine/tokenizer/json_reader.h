#ifndef MNEME_ENGINE_TOKENIZER_JSON_READER_H_
#define MNEME_ENGINE_TOKENIZER_JSON_READER_H_

#include <cstddef>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace mneme {

// Reading JSON that may be hostile. `where` names the place in messages ("model.vocab"). All
// failures are INVALID_ARGUMENT unless said otherwise.

// Parses a text. Nesting deeper than 64 is refused, so memory stays in proportion to the text.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text);

// Reads a whole file. NOT_FOUND if there is none.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes);

// The member `name` of `object`; a null value if it is absent. `object` must be a JSON object.
absl::StatusOr<const nlohmann::json*> Member(const nlohmann::json& object, const std::string& name,
                                             absl::string_view where);

// The same, which must be there and of the type.
absl::StatusOr<const nlohmann::json*> ObjectMember(const nlohmann::json& object,
                                                   const std::string& name,
                                                   absl::string_view where);
absl::StatusOr<const nlohmann::json*> ArrayMember(const nlohmann::json& object,
                                                  const std::string& name, absl::string_view where);
absl::StatusOr<std::string> StringMember(const nlohmann::json& object, const std::string& name,
                                         absl::string_view where);

// A boolean, `fallback` where it is absent or null.
absl::StatusOr<bool> BoolMember(const nlohmann::json& object, const std::string& name,
                                bool fallback, absl::string_view where);

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_JSON_READER_H_
