#ifndef MNEME_ENGINE_SAMPLING_TEXT_STREAM_H_
#define MNEME_ENGINE_SAMPLING_TEXT_STREAM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/sampling/stop_matcher.h"
#include "engine/tokenizer/detokenizer.h"

namespace mneme {

// The text of generated tokens as it may be shown: whole characters, cut at a stop string. Without
// a tokenizer there is no text. One request's.
class TextStream {
 public:
  // `tokenizer` may be null and must outlive the stream.
  TextStream(const Tokenizer* tokenizer, std::vector<std::string> stops);

  // The text that the token completes, and the stop string if it came to one. Without `match_stops`
  // no stop string begins in this text.
  StopMatcher::Result Push(int32_t id, bool match_stops);
  // Whether text is held back that later tokens may complete or cut.
  bool holding() const { return detokenizer_ && (detokenizer_->holding() || matcher_.holding()); }
  // Ends the text: what was held back.
  StopMatcher::Result Flush();

 private:
  std::optional<IncrementalDetokenizer> detokenizer_;
  StopMatcher matcher_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SAMPLING_TEXT_STREAM_H_
