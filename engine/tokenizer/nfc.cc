#include "engine/tokenizer/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "base/check.h"
#include "engine/tokenizer/utf8.h"

namespace mneme {
namespace {

constexpr auto kDecompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
constexpr auto kCompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

bool IsAscii(char c) { return static_cast<unsigned char>(c) < 0x80; }

auto CombiningClass(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

void AppendDecomposition(char32_t code_point, std::vector<utf8proc_int32_t>* code_points) {
  std::array<utf8proc_int32_t, 32> decomposition;
  int boundary_class = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), decomposition.data(),
                              decomposition.size(), kDecompose, &boundary_class);
  MNEME_CHECK(count >= 0 && static_cast<size_t>(count) <= decomposition.size());
  code_points->insert(code_points->end(), decomposition.begin(), decomposition.begin() + count);
}

// Puts each run of combining marks into canonical order. utf8proc's own ordering is quadratic in
// the length of a run, and a run's length is up to whoever wrote the text.
void OrderCombiningMarks(std::vector<utf8proc_int32_t>* code_points) {
  const auto is_mark = [](utf8proc_int32_t c) { return CombiningClass(c) != 0; };
  auto begin = code_points->begin();
  while (begin != code_points->end()) {
    begin = std::find_if(begin, code_points->end(), is_mark);
    const auto end = std::find_if_not(begin, code_points->end(), is_mark);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    begin = end;
  }
}

void AppendNfc(absl::string_view text, std::string* out) {
  std::vector<utf8proc_int32_t> code_points;
  while (!text.empty()) {
    const Utf8Step step = ReadUtf8(text);
    AppendDecomposition(step.code_point, &code_points);
    text.remove_prefix(step.length);
  }
  OrderCombiningMarks(&code_points);
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), kCompose);
  MNEME_CHECK(count >= 0);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    std::array<utf8proc_uint8_t, 4> bytes;
    const utf8proc_ssize_t length =
        utf8proc_encode_char(code_points[static_cast<size_t>(i)], bytes.data());
    out->append(bytes.begin(), bytes.begin() + length);
  }
}

}  // namespace

std::string NormalizeNfc(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  while (done < text.size()) {
    // No ASCII character composes with what stands before it, so a run of others, with the one
    // ASCII character before it, can be normalized by itself.
    size_t begin = done;
    while (begin < text.size() && IsAscii(text[begin])) ++begin;
    size_t end = begin;
    while (end < text.size() && !IsAscii(text[end])) ++end;
    const size_t base = end > begin && begin > done ? begin - 1 : begin;
    out.append(text.data() + done, base - done);
    if (end > begin) AppendNfc(text.substr(base, end - base), &out);
    done = end;
  }
  return out;
}

}  // namespace mneme
