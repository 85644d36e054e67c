#include "engine/loading/safetensors_header.h"

#include <array>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace mneme {
namespace {

constexpr size_t kMaxRank = 8;
constexpr size_t kMaxQuotedBytes = 128;

struct DTypeName {
  absl::string_view name;
  int64_t element_bytes;
};
constexpr std::array kDTypes = {
    DTypeName{"BOOL", 1},    DTypeName{"U8", 1},      DTypeName{"I8", 1},  DTypeName{"F8_E5M2", 1},
    DTypeName{"F8_E4M3", 1}, DTypeName{"F8_E8M0", 1}, DTypeName{"I16", 2}, DTypeName{"U16", 2},
    DTypeName{"F16", 2},     DTypeName{"BF16", 2},    DTypeName{"I32", 4}, DTypeName{"U32", 4},
    DTypeName{"F32", 4},     DTypeName{"F64", 8},     DTypeName{"I64", 8}, DTypeName{"U64", 8},
    DTypeName{"C64", 8}};

// Receives the parser's events. The header is { name: { "dtype": …, "shape": […],
// "data_offsets": [b, e] }, … }, so the place in it is the depth and the last key.
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return Scalar(); }
  bool boolean(bool) override { return Scalar(); }
  bool number_integer(number_integer_t) override { return Scalar(); }
  bool number_float(number_float_t, const string_t&) override { return Scalar(); }
  bool binary(binary_t&) override { return Scalar(); }
  bool number_unsigned(number_unsigned_t value) override {
    if (in_metadata_ || depth_ != 3) return Scalar();
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max())) {
      return RefuseTensor("has a number beyond 2^63 in its header");
    }
    std::vector<int64_t>& list = field_ == "shape" ? entry_.shape : offsets_;
    if (list.size() == kMaxRank) return RefuseTensor("has too many dimensions or offsets");
    list.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool string(string_t& value) override {
    if (in_metadata_ || depth_ != 2 || field_ != "dtype") return Scalar();
    if (SafetensorsElementBytes(value) == 0) {
      return RefuseTensor(absl::StrCat("has the unknown dtype ", QuotedName(value)));
    }
    entry_.dtype = value;
    return true;
  }
  bool start_object(size_t) override {
    return ++depth_ <= 2 || Refuse("an object is nested too deeply");
  }
  bool key(string_t& value) override {
    return depth_ == 1 ? StartTensor(value) : StartField(value);
  }
  bool end_object() override {
    return --depth_ != 1 || std::exchange(in_metadata_, false) || FinishTensor();
  }
  bool start_array(size_t) override {
    if (in_metadata_ || depth_ != 2 || field_ == "dtype") return Scalar();
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Refuse(absl::StrCat("the header is not valid JSON at byte ", position));
  }

  absl::Status status() const { return status_; }
  std::vector<SafetensorsEntry> TakeEntries() { return std::move(entries_); }

 private:
  bool Refuse(const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(what);
    return false;
  }
  bool RefuseTensor(const std::string& what) {
    return Refuse(absl::StrCat("tensor ", QuotedName(entry_.name), " ", what));
  }
  // A value where the format has none of its kind; metadata may hold any.
  bool Scalar() {
    if (in_metadata_) return true;
    if (depth_ == 0) return Refuse("the header is not a JSON object");
    return RefuseTensor(depth_ == 1 ? "is not described by an object"
                                    : absl::StrCat("has a malformed ", QuotedName(field_)));
  }
  bool StartTensor(const std::string& name) {
    entry_ = {};
    entry_.name = name;
    offsets_.clear();
    fields_.clear();
    in_metadata_ = name == "__metadata__";
    return names_.insert(name).second || RefuseTensor("is given twice");
  }
  bool StartField(const std::string& name) {
    if (in_metadata_) return true;
    field_ = name;
    if (name != "dtype" && name != "shape" && name != "data_offsets") {
      return RefuseTensor(absl::StrCat("has the unknown key ", QuotedName(name)));
    }
    return fields_.insert(name).second ||
           RefuseTensor(absl::StrCat("has the key ", QuotedName(name), " twice"));
  }
  bool FinishTensor() {
    if (fields_.size() != 3) return RefuseTensor("lacks dtype, shape or data_offsets");
    if (offsets_.size() != 2) return RefuseTensor("needs two data_offsets");
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    entries_.push_back(std::move(entry_));
    return true;
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  std::string field_;
  SafetensorsEntry entry_;
  std::vector<int64_t> offsets_;
  std::set<std::string> fields_;
  std::set<std::string> names_;
  std::vector<SafetensorsEntry> entries_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(absl::string_view json) {
  HeaderHandler handler;
  nlohmann::json::sax_parse(json.begin(), json.end(), &handler);
  if (!handler.status().ok()) return handler.status();
  return handler.TakeEntries();
}

int64_t SafetensorsElementBytes(absl::string_view dtype) {
  for (const DTypeName& known : kDTypes) {
    if (known.name == dtype) return known.element_bytes;
  }
  return 0;
}

std::string QuotedName(absl::string_view name) {
  const bool shortened = name.size() > kMaxQuotedBytes;
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, kMaxQuotedBytes)),
                      shortened ? "…\"" : "\"");
}

}  // namespace mneme
