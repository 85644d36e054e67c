#include "engine/sampling/text_stream.h"

#include <utility>

namespace mneme {

TextStream::TextStream(const Tokenizer* tokenizer, std::vector<std::string> stops)
    : matcher_(std::move(stops)) {
  if (tokenizer != nullptr) detokenizer_.emplace(*tokenizer);
}

StopMatcher::Result TextStream::Push(int32_t id, bool match_stops) {
  if (!detokenizer_) return {};
  std::string text = detokenizer_->Push(id);
  if (!match_stops) return {.text = std::move(text)};
  return matcher_.Push(text);
}

StopMatcher::Result TextStream::Flush() {
  if (!detokenizer_) return {};
  StopMatcher::Result last = matcher_.Push(detokenizer_->Flush());
  if (!last.matched) last.text += matcher_.Flush();
  return last;
}

}  // namespace mneme
