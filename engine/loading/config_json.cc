#include "engine/loading/config_json.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace mneme {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxQuotedBytes = 80;

// Whether `value` is an integer in [low, high], which it then writes to `result`.
bool ReadInteger(const nlohmann::json& value, int64_t low, int64_t high, int64_t* result) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) return false;
  *result = value.get<int64_t>();
  return low <= *result && *result <= high;
}

std::string IntegerRange(int64_t low, int64_t high) {
  return absl::StrCat("an integer from ", low, " to ", high);
}

}  // namespace

absl::StatusOr<ConfigJson> ConfigJson::Parse(absl::string_view text) {
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a configuration of ", text.size(), " bytes is beyond ", kMaxBytes));
  }
  try {
    nlohmann::json object = nlohmann::json::parse(text.begin(), text.end());
    if (object.is_object()) return ConfigJson(std::move(object));
    return absl::InvalidArgumentError("the configuration is not a JSON object");
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("not valid JSON: ", error.what()));
  }
}

bool ConfigJson::Has(const std::string& key) const {
  return object_.contains(key) && !object_[key].is_null();
}

int64_t ConfigJson::Integer(const std::string& key, int64_t low, int64_t high) {
  int64_t result = low;
  if (!Has(key) || !ReadInteger(object_[key], low, high, &result)) {
    FailValue(key, IntegerRange(low, high));
    return low;
  }
  return result;
}

int64_t ConfigJson::Integer(const std::string& key, int64_t low, int64_t high, int64_t absent) {
  return Has(key) ? Integer(key, low, high) : absent;
}

double ConfigJson::Number(const std::string& key, double low, double high) {
  // The parser refuses numbers beyond a double, and JSON has no NaN.
  if (Has(key) && object_[key].is_number()) {
    const double value = object_[key].get<double>();
    if (low <= value && value <= high) return value;
  }
  FailValue(key, absl::StrCat("a number from ", low, " to ", high));
  return low;
}

double ConfigJson::Number(const std::string& key, double low, double high, double absent) {
  return Has(key) ? Number(key, low, high) : absent;
}

bool ConfigJson::Bool(const std::string& key, bool absent) {
  if (!Has(key)) return absent;
  if (object_[key].is_boolean()) return object_[key].get<bool>();
  FailValue(key, "true or false");
  return absent;
}

std::string ConfigJson::String(const std::string& key, const std::string& absent) {
  if (!Has(key)) return absent;
  if (object_[key].is_string()) return object_[key].get<std::string>();
  FailValue(key, "a string");
  return absent;
}

std::vector<int64_t> ConfigJson::Integers(const std::string& key, int64_t low, int64_t high) {
  if (!Has(key)) return {};
  const nlohmann::json& value = object_[key];
  if (!value.is_array()) return {Integer(key, low, high)};
  std::vector<int64_t> result(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    if (ReadInteger(value[i], low, high, &result[i])) continue;
    FailValue(key, absl::StrCat("a list, each ", IntegerRange(low, high)));
    return {};
  }
  return result;
}

std::vector<std::string> ConfigJson::Strings(const std::string& key) {
  if (!Has(key)) return {};
  std::vector<std::string> result;
  for (const nlohmann::json& value : object_[key]) {
    if (!object_[key].is_array() || !value.is_string()) {
      FailValue(key, "a list of strings");
      return {};
    }
    result.push_back(value.get<std::string>());
  }
  return result;
}

ConfigJson ConfigJson::Object(const std::string& key) {
  if (!Has(key)) return ConfigJson(nlohmann::json::object());
  if (object_[key].is_object()) return ConfigJson(object_[key]);
  FailValue(key, "an object");
  return ConfigJson(nlohmann::json::object());
}

void ConfigJson::Fail(const absl::Status& status) {
  if (status_.ok()) status_ = status;
}

void ConfigJson::FailValue(const std::string& key, const std::string& must) {
  if (!status_.ok()) return;
  std::string found = "is missing";
  if (Has(key)) {
    // `replace`: the value may hold bytes that are not UTF-8.
    found = object_[key].dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (found.size() > kMaxQuotedBytes) found = found.substr(0, kMaxQuotedBytes) + "…";
    found = absl::StrCat("is ", found);
  }
  Fail(absl::InvalidArgumentError(absl::StrCat("\"", key, "\" must be ", must, ", but ", found)));
}

}  // namespace mneme
