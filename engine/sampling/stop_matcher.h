#ifndef MNEME_ENGINE_SAMPLING_STOP_MATCHER_H_
#define MNEME_ENGINE_SAMPLING_STOP_MATCHER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace mneme {

inline constexpr size_t kMaxStopBytes = 1024;

// INVALID_ARGUMENT that names the stop string unless there are at most 64 of them, each of 1 to
// 1,024 bytes and beginning with a whole UTF-8 character.
absl::Status ValidateStopStrings(absl::Span<const std::string> stops);

// Finds stop strings in a text that arrives in pieces, and passes on what cannot belong to one.
//
// The match is the stop string that is complete first, since generation ends there; of those that
// end at the same byte, the longest, so that no part of a stop string is emitted. How the text is
// cut into pieces changes neither the match nor the emitted text. Costs O(bytes · stop strings).
//
// Pieces are complete UTF-8 and stop strings begin with a whole character, so every emitted text is
// complete UTF-8 as well. Not thread-safe.
class StopMatcher {
 public:
  struct Result {
    std::string text;                    // safe to emit: follows what was emitted before
    std::optional<std::string> matched;  // the stop string; the emitted text ends before it
  };

  // `stops` have passed ValidateStopStrings; none of them is good too.
  explicit StopMatcher(std::vector<std::string> stops);

  // Takes the next piece; holds back the longest suffix that may begin a stop string. A match ends
  // the stream, and the text after it is dropped: call nothing more.
  Result Push(absl::string_view piece);

  // Whether text is held back.
  bool holding() const { return !held_.empty(); }

  // Ends the stream without a match: returns what was held back.
  std::string Flush();

 private:
  // One stop string and how much of it the text ends with (Knuth, Morris, Pratt).
  class Pattern {
   public:
    explicit Pattern(std::string text);
    // Takes the next byte of the text; true if the text now ends with the whole stop string.
    bool Advance(char byte);
    const std::string& text() const { return text_; }
    size_t matched() const { return matched_; }

   private:
    std::string text_;
    std::vector<size_t> borders_;  // [i]: longest proper prefix of text_[0, i] that is its suffix
    size_t matched_ = 0;           // bytes of text_, fewer than all of them
  };

  // Advances every pattern; returns the longest that is complete, or nullptr.
  const Pattern* Advance(char byte);

  std::vector<Pattern> patterns_;
  std::string held_;  // received, not yet emitted
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SAMPLING_STOP_MATCHER_H_
