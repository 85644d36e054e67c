#ifndef MNEME_CLIENT_TEXT_PIECES_H_
#define MNEME_CLIENT_TEXT_PIECES_H_

#include <cstddef>
#include <cstdint>
#include <istream>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace mneme {

// The length of the longest prefix of `text` that is whole and valid UTF-8.
size_t ValidUtf8Prefix(std::string_view text);

// Where to cut `text`, longer than `limit` and beginning with valid UTF-8, so that the pieces are
// tokenised as the whole would be: the last place <= limit before a single space between words, or
// after line ends and before a word; where there is none, the last character's beginning (at least
// one character is taken). Byte-level BPE glues a space to the word after it and line ends to what
// stands before.
size_t CutPosition(std::string_view text, size_t limit);

// Reads a text piece by piece; the pieces together are the text.
class TextPieces {
 public:
  // `in` is borrowed. Pieces have at most `piece_bytes` >= 4 bytes.
  TextPieces(std::istream& in, size_t piece_bytes) : in_(in), piece_bytes_(piece_bytes) {}

  // The next piece; empty at the end. INVALID_ARGUMENT with the byte's place: not UTF-8.
  // DATA_LOSS: the stream cannot be read.
  absl::StatusOr<std::string> Next();

 private:
  std::istream& in_;
  const size_t piece_bytes_;
  std::string buffer_;  // read and not yet given out
  uint64_t given_bytes_ = 0;
};

}  // namespace mneme

#endif  // MNEME_CLIENT_TEXT_PIECES_H_
