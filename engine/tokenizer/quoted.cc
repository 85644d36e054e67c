#include "engine/tokenizer/quoted.h"

#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/utf8.h"

namespace mneme {
namespace {

constexpr size_t kMaxBytes = 64;

}  // namespace

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(Utf8Lossy(text.substr(0, kMaxBytes))),
                      text.size() > kMaxBytes ? "...\"" : "\"");
}

}  // namespace mneme
