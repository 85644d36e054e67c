#include "engine/tokenizer/detokenizer.h"

#include <utility>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/utf8.h"

namespace mneme {

std::string IncrementalDetokenizer::Push(int32_t id) {
  std::string text;
  if (tokenizer_.IsSpecial(id)) return text;
  const absl::string_view token = tokenizer_.TokenBytes(id);
  pending_.append(token.data(), token.size());
  DrainUtf8(&pending_, &text);
  return text;
}

std::string IncrementalDetokenizer::Flush() { return Utf8Lossy(std::exchange(pending_, {})); }

}  // namespace mneme
