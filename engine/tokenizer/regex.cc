#include "engine/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tokenizer/regex_dialect.h"
#include "engine/tokenizer/utf8.h"

namespace mneme {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
constexpr size_t kJitStackBytes = 1 << 20;
constexpr uint32_t kHeapLimitKib = 64 << 10;

template <auto kFree>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Freed<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Freed<pcre2_jit_stack_free>>;

std::string ErrorText(int error) {
  std::array<PCRE2_UCHAR, 256> message{};
  pcre2_get_error_message(error, message.data(), message.size());
  return reinterpret_cast<const char*>(message.data());
}

struct Match {
  size_t begin;
  size_t end;
};

// What PCRE2 needs beside the pattern, which threads cannot share.
class Matcher {
 public:
  explicit Matcher(const pcre2_code* code)
      : code_(code),
        data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        jit_stack_(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr)) {
    pcre2_set_heap_limit(context_.get(), kHeapLimitKib);
    pcre2_jit_stack_assign(context_.get(), nullptr, jit_stack_.get());
  }

  // Appends the pieces of `text`.
  absl::Status Split(absl::string_view text, std::vector<absl::string_view>* pieces) {
    // A well-behaved pattern backtracks over a run once, so the limit grows with the text.
    const size_t limit = (size_t{1} << 20) + 64 * text.size();
    pcre2_set_match_limit(context_.get(),
                          static_cast<uint32_t>(std::min<size_t>(limit, UINT32_MAX)));
    const auto add = [&](size_t begin, size_t end) {
      if (end > begin) pieces->push_back(text.substr(begin, end - begin));
    };
    size_t done = 0;
    size_t offset = 0;
    while (offset < text.size()) {
      MNEME_ASSIGN_OR_RETURN(const Match match, Find(text, offset));
      add(done, match.begin);
      add(match.begin, match.end);
      done = match.end;
      // After an empty match the search goes on behind the next character.
      const bool stuck = match.end == match.begin && match.end < text.size();
      offset = stuck ? match.end + ReadUtf8(text.substr(match.end)).length : match.end;
    }
    add(done, text.size());
    return absl::OkStatus();
  }

 private:
  // The first match at or after `offset`; begin is the text's size where there is none.
  absl::StatusOr<Match> Find(absl::string_view text, size_t offset) {
    int found = Run(text, offset, PCRE2_NO_UTF_CHECK);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
      found = Run(text, offset, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
    if (found == PCRE2_ERROR_NOMATCH) return Match{text.size(), text.size()};
    if (found < 0) {
      return absl::ResourceExhaustedError(absl::StrCat("the tokenizer's regex gave up at byte ",
                                                       offset, " of ", text.size(), ": ",
                                                       ErrorText(found)));
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data_.get());
    return Match{bounds[0], bounds[1]};
  }

  int Run(absl::string_view text, size_t offset, uint32_t options) {
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), offset,
                       options, data_.get(), context_.get());
  }

  const pcre2_code* code_;
  MatchData data_;
  MatchContext context_;
  JitStack jit_stack_;
};

}  // namespace

void Regex::CodeDeleter::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regex has ", pattern.size(), " bytes, more than ", kMaxPatternBytes));
  }
  MNEME_ASSIGN_OR_RETURN(const std::string translated, TranslateRegex(pattern));
  const CompileContext context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &error_offset, context.get()));
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regex does not compile: ", ErrorText(error)));
  }
  // Without a JIT on this machine the interpreter gives the same matches.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

absl::StatusOr<std::vector<absl::string_view>> Regex::Split(
    absl::Span<const absl::string_view> texts) const {
  Matcher matcher(code_.get());
  std::vector<absl::string_view> pieces;
  for (absl::string_view text : texts) MNEME_RETURN_IF_ERROR(matcher.Split(text, &pieces));
  return pieces;
}

}  // namespace mneme
