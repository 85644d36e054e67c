#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/recall_document.h"

namespace mneme {
namespace {

using Json = nlohmann::json;

absl::Status Malformed(const std::string& field, const char* what) {
  return absl::InvalidArgumentError(absl::StrCat("recall task: \"", field, "\" ", what));
}

absl::StatusOr<std::vector<std::string>> Strings(const Json& parent, const std::string& field) {
  const auto value = parent.find(field);
  if (value == parent.end() || !value->is_array() || value->empty()) {
    return Malformed(field, "must be a list that is not empty");
  }
  std::vector<std::string> strings;
  for (const Json& element : *value) {
    if (!element.is_string()) return Malformed(field, "must be a list of strings");
    strings.push_back(element.get<std::string>());
  }
  return strings;
}

absl::Status CheckSlots(const std::string& field, const std::vector<std::string>& templates,
                        const std::vector<std::string>& known) {
  for (const std::string& text : templates) {
    for (size_t open = text.find('{'); open != std::string::npos; open = text.find('{', open + 1)) {
      const size_t close = text.find('}', open);
      if (close == std::string::npos) return Malformed(field, "has a { without a }");
      const std::string slot = text.substr(open + 1, close - open - 1);
      if (std::find(known.begin(), known.end(), slot) == known.end()) {
        return Malformed(field, absl::StrCat("has the unknown slot {", slot, "}").c_str());
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckContains(const std::string& field, const std::vector<std::string>& templates,
                           const std::vector<std::string>& slots) {
  for (const std::string& text : templates) {
    for (const std::string& slot : slots) {
      if (text.find(absl::StrCat("{", slot, "}")) == std::string::npos) {
        return Malformed(field, absl::StrCat("has a template without {", slot, "}").c_str());
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ReadWords(const Json& json, RecallTask& task) {
  const auto words = json.find("words");
  if (words == json.end() || !words->is_object()) return Malformed("words", "must be an object");
  for (const auto& [slot, unused] : words->items()) {
    MNEME_ASSIGN_OR_RETURN(task.words[slot], Strings(*words, slot));
  }
  for (const char* slot : {"name", "attribute"}) {
    if (!task.words.contains(slot)) return Malformed("words", "must have name and attribute");
  }
  return absl::OkStatus();
}

absl::Status CheckTemplates(const RecallTask& task) {
  std::vector<std::string> slots;
  for (const auto& [slot, unused] : task.words) slots.push_back(slot);
  MNEME_RETURN_IF_ERROR(CheckSlots("filler", task.filler, slots));
  MNEME_RETURN_IF_ERROR(CheckSlots("question", task.question, {"name", "attribute"}));
  MNEME_RETURN_IF_ERROR(CheckContains("question", task.question, {"name", "attribute"}));
  MNEME_RETURN_IF_ERROR(CheckSlots("fact", task.fact, {"name", "attribute", "code"}));
  return CheckContains("fact", task.fact, {"name", "attribute", "code"});
}

}  // namespace

absl::StatusOr<RecallTask> ParseRecallTask(const std::string& json) {
  const Json parsed = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return absl::InvalidArgumentError("recall task: not a JSON object");
  RecallTask task;
  MNEME_ASSIGN_OR_RETURN(task.fact, Strings(parsed, "fact"));
  MNEME_ASSIGN_OR_RETURN(task.question, Strings(parsed, "question"));
  MNEME_ASSIGN_OR_RETURN(task.filler, Strings(parsed, "filler"));
  if (parsed.contains("uniform_slots")) {
    MNEME_ASSIGN_OR_RETURN(task.uniform_slots, Strings(parsed, "uniform_slots"));
  }
  MNEME_RETURN_IF_ERROR(ReadWords(parsed, task));
  const auto digits = parsed.find("code_digits");
  if (digits == parsed.end() || !digits->is_number_unsigned() || *digits < 1U || *digits > 32U) {
    return Malformed("code_digits", "must be a whole number in [1, 32]");
  }
  task.code_digits = digits->get<uint32_t>();
  MNEME_RETURN_IF_ERROR(CheckTemplates(task));
  return task;
}

}  // namespace mneme
