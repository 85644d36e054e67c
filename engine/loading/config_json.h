#ifndef MNEME_ENGINE_LOADING_CONFIG_JSON_H_
#define MNEME_ENGINE_LOADING_CONFIG_JSON_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace mneme {

// Reads checked values from a JSON object. The first value that does not fit latches an
// INVALID_ARGUMENT that names its key; from then on reads return values of no meaning, so that a
// caller reads everything and then asks status() once. A key that is null counts as absent.
class ConfigJson {
 public:
  // INVALID_ARGUMENT if `text` is not one JSON object of a configuration's size.
  static absl::StatusOr<ConfigJson> Parse(absl::string_view text);

  bool Has(const std::string& key) const;

  // The integer or number at `key`, within [low, high]; the first form requires the key.
  int64_t Integer(const std::string& key, int64_t low, int64_t high);
  int64_t Integer(const std::string& key, int64_t low, int64_t high, int64_t absent);
  double Number(const std::string& key, double low, double high);
  double Number(const std::string& key, double low, double high, double absent);
  bool Bool(const std::string& key, bool absent);
  std::string String(const std::string& key, const std::string& absent);
  // An integer, or a list of them, each within [low, high]; empty if absent.
  std::vector<int64_t> Integers(const std::string& key, int64_t low, int64_t high);
  // A list of strings; empty if absent.
  std::vector<std::string> Strings(const std::string& key);
  // The object at `key`, read on its own: ask its status() too. Empty if absent.
  ConfigJson Object(const std::string& key);

  // Latches `status` unless one is latched.
  void Fail(const absl::Status& status);
  const absl::Status& status() const { return status_; }

 private:
  explicit ConfigJson(nlohmann::json object) : object_(std::move(object)) {}
  void FailValue(const std::string& key, const std::string& must);

  nlohmann::json object_;
  absl::Status status_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_CONFIG_JSON_H_
