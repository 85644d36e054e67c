#ifndef MNEME_ENGINE_TOKENIZER_DETOKENIZER_H_
#define MNEME_ENGINE_TOKENIZER_DETOKENIZER_H_

#include <cstdint>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace mneme {

// Turns a stream of ids into text as it comes. The results of all Push and the Flush together are
// what Tokenizer::Decode(ids, false) gives, and each of them is valid UTF-8: the beginning of a
// character waits for its end. One per stream, one thread at a time; the tokenizer must outlive it.
class IncrementalDetokenizer {
 public:
  explicit IncrementalDetokenizer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // The text that became complete with this token; often empty inside a character. Nothing comes
  // of special tokens and of ids that the tokenizer does not have.
  std::string Push(int32_t id);

  // Whether a character was begun and waits for its end.
  bool holding() const { return !pending_.empty(); }

  // Ends the stream: U+FFFD if a character was begun, else empty. Then a new stream may begin.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;  // at most 3 bytes: the beginning of a character
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_DETOKENIZER_H_
