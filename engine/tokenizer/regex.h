#ifndef MNEME_ENGINE_TOKENIZER_REGEX_H_
#define MNEME_ENGINE_TOKENIZER_REGEX_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

struct pcre2_real_code_8;  // pcre2.h stays in the implementation

namespace mneme {

// A compiled regular expression of a pre-tokenizer. Immutable; any number of threads may use it.
class Regex {
 public:
  // Compiles a pattern in the syntax of tokenizer.json (see regex_dialect.h). INVALID_ARGUMENT if
  // it does not compile, UNIMPLEMENTED if it uses what is not supported.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);

  // The matches in each of `texts` (valid UTF-8) and what lies between them, in order and without
  // empty ones: together they are the texts, into which they point. RESOURCE_EXHAUSTED if the
  // pattern backtracks too much on one of them.
  absl::StatusOr<std::vector<absl::string_view>> Split(
      absl::Span<const absl::string_view> texts) const;

 private:
  struct CodeDeleter {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, CodeDeleter>;

  explicit Regex(Code code) : code_(std::move(code)) {}

  Code code_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_REGEX_H_
