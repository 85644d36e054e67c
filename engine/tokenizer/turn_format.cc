#include "engine/tokenizer/turn_format.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tokenizer/json_reader.h"
#include "engine/tokenizer/quoted.h"
#include "engine/tokenizer/tokenizer.h"

namespace mneme {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr const char* kRoles[] = {"system", "user", "assistant", "tool"};

TurnFormat ChatMl() {
  TurnFormat format{"chatml", {}};
  for (const char* role : kRoles) {
    format.roles[role] = {absl::StrCat("<|im_start|>", role, "\n"), "<|im_end|>\n"};
  }
  return format;
}

TurnFormat Llama3() {
  TurnFormat format{"llama3", {}};
  for (const char* role : kRoles) {
    const std::string header = std::string(role) == "tool" ? "ipython" : role;
    format.roles[role] = {absl::StrCat("<|start_header_id|>", header, "<|end_header_id|>\n\n"),
                          "<|eot_id|>"};
  }
  return format;
}

TurnFormat Plain() {
  return {"plain",
          {{"system", {"System:\n", "\n\n"}},
           {"user", {"User:\n", "\n\n"}},
           {"assistant", {"Assistant:\n", "\n\n"}},
           {"tool", {"Tool:\n", "\n\n"}}}};
}

bool HasSpecial(const Tokenizer& tokenizer, absl::string_view spelling) {
  const std::optional<int32_t> id = tokenizer.TokenToId(spelling);
  return id.has_value() && tokenizer.IsSpecial(*id);
}

}  // namespace

absl::StatusOr<TurnFormat> TurnFormat::ByName(absl::string_view name) {
  if (name == "chatml") return ChatMl();
  if (name == "llama3") return Llama3();
  if (name == "plain") return Plain();
  return absl::InvalidArgumentError(absl::StrCat("there is no turn format ", Quoted(name),
                                                 "; the known ones are chatml, llama3 and plain"));
}

absl::StatusOr<TurnFormat> TurnFormat::FromFile(const std::filesystem::path& path) {
  MNEME_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxFileBytes));
  absl::StatusOr<TurnFormat> format = FromJson(json);
  if (format.ok()) return format;
  return absl::Status(format.status().code(),
                      absl::StrCat(path.string(), ": ", format.status().message()));
}

absl::StatusOr<TurnFormat> TurnFormat::FromJson(absl::string_view json) {
  MNEME_ASSIGN_OR_RETURN(const nlohmann::json file, ParseJson(json));
  TurnFormat format;
  MNEME_ASSIGN_OR_RETURN(format.name, StringMember(file, "name", "turn_format"));
  MNEME_ASSIGN_OR_RETURN(const nlohmann::json* roles, ObjectMember(file, "roles", "turn_format"));
  for (const auto& [name, value] : roles->items()) {
    const std::string where = absl::StrCat("roles.", Quoted(name));
    Role& role = format.roles[name];
    MNEME_ASSIGN_OR_RETURN(role.prefix, StringMember(value, "prefix", where));
    MNEME_ASSIGN_OR_RETURN(role.suffix, StringMember(value, "suffix", where));
  }
  if (!format.roles.contains("assistant")) {
    return absl::InvalidArgumentError("turn_format.roles lacks the role \"assistant\"");
  }
  return format;
}

absl::StatusOr<TurnFormat> DefaultTurnFormat(const std::filesystem::path& model_dir,
                                             const Tokenizer& tokenizer) {
  absl::StatusOr<TurnFormat> given = TurnFormat::FromFile(model_dir / "turn_format.json");
  if (given.ok() || !absl::IsNotFound(given.status())) return given;
  if (HasSpecial(tokenizer, "<|im_start|>") && HasSpecial(tokenizer, "<|im_end|>")) return ChatMl();
  if (HasSpecial(tokenizer, "<|start_header_id|>") && HasSpecial(tokenizer, "<|eot_id|>")) {
    return Llama3();
  }
  return Plain();
}

}  // namespace mneme
