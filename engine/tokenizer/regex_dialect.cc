#include "engine/tokenizer/regex_dialect.h"

#include <array>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

constexpr char kSpace[] =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr char kNotSpace[] =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

// The groups that both dialects know by the same name.
constexpr std::array<absl::string_view, 7> kGroups = {"(?:", "(?i:", "(?=", "(?!",
                                                      "(?>", "(?<=", "(?<!"};

bool InRange(char c, char first, char last) { return c >= first && c <= last; }

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : rest_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (!rest_.empty()) MNEME_RETURN_IF_ERROR(in_class_ ? ClassItem() : Item());
    if (in_class_) return absl::InvalidArgumentError("the regex ends inside [...]");
    return std::move(out_);
  }

 private:
  absl::Status Item() {
    switch (rest_[0]) {
      case '\\':
        return Escape();
      case '[':
        return OpenClass();
      case '(':
        return OpenGroup();
      case '^':
      case '$':
        return Unsupported(1);
      case '{':
        return rest_.size() > 1 && InRange(rest_[1], '0', '9') ? Copy(1) : Unsupported(2);
      case '}':
        return rest_.size() > 1 && (rest_[1] == '+' || rest_[1] == '?') ? Unsupported(2) : Copy(1);
      default:
        return Copy(1);
    }
  }

  absl::Status ClassItem() {
    if (rest_[0] == '\\') return Escape();
    if (rest_[0] == '[' || absl::StartsWith(rest_, "&&")) return Unsupported(2);
    if (rest_[0] == ']') in_class_ = false;
    return Copy(1);
  }

  absl::Status OpenClass() {
    in_class_ = true;
    MNEME_RETURN_IF_ERROR(Copy(absl::StartsWith(rest_, "[^") ? 2 : 1));
    return absl::StartsWith(rest_, "]") ? Unsupported(1) : absl::OkStatus();
  }

  absl::Status OpenGroup() {
    if (!absl::StartsWith(rest_, "(?") && !absl::StartsWith(rest_, "(*")) return Copy(1);
    for (absl::string_view group : kGroups) {
      if (absl::StartsWith(rest_, group)) return Copy(group.size());
    }
    return Unsupported(3);
  }

  absl::Status Escape() {
    if (rest_.size() < 2) return absl::InvalidArgumentError("the regex ends in a backslash");
    const char c = rest_[1];
    if (c == 's' || c == 'S') return SpaceEscape(c == 'S');
    if (c == 'p' || c == 'P') return Property();
    const bool same = absl::ascii_ispunct(static_cast<unsigned char>(c)) ||
                      absl::StrContains("rntfdD", absl::string_view(&c, 1));
    return same ? Copy(2) : Unsupported(2);
  }

  absl::Status SpaceEscape(bool negated) {
    if (in_class_) {
      absl::StrAppend(&out_, negated ? kNotSpace : kSpace);
    } else {
      absl::StrAppend(&out_, negated ? "[^" : "[", kSpace, "]");
    }
    rest_.remove_prefix(2);
    return absl::OkStatus();
  }

  // \p{L} or \p{Lu}: general categories only; scripts and long names differ between the dialects.
  absl::Status Property() {
    const size_t close = rest_.find('}');
    if (rest_.size() < 3 || rest_[2] != '{' || close == absl::string_view::npos) {
      return Unsupported(3);
    }
    const absl::string_view name = rest_.substr(3, close - 3);
    const bool category = (name.size() == 1 || (name.size() == 2 && InRange(name[1], 'a', 'z'))) &&
                          InRange(name[0], 'A', 'Z');
    return category ? Copy(close + 1) : Unsupported(close + 1);
  }

  absl::Status Copy(size_t bytes) {
    absl::StrAppend(&out_, rest_.substr(0, bytes));
    rest_.remove_prefix(bytes);
    return absl::OkStatus();
  }

  absl::Status Unsupported(size_t bytes) const {
    return absl::UnimplementedError(
        absl::StrCat("the regex uses ", rest_.substr(0, bytes), " which is not supported here"));
  }

  absl::string_view rest_;
  std::string out_;
  bool in_class_ = false;
};

}  // namespace

absl::StatusOr<std::string> TranslateRegex(absl::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace mneme
