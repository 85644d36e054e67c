#ifndef MNEME_CLIENT_RECALL_DOCUMENT_H_
#define MNEME_CLIENT_RECALL_DOCUMENT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mneme {

// The language of a recall task, read from the model's recall_task.json (its "comment" describes
// the fields). Templates hold {slot} placeholders; every slot of a filler has words, facts and
// questions have {name}, {attribute} and, facts, {code}.
struct RecallTask {
  std::vector<std::string> fact;
  std::vector<std::string> question;
  std::vector<std::string> filler;
  std::map<std::string, std::vector<std::string>> words;
  std::vector<std::string> uniform_slots;  // the others are drawn by Zipf's law
  uint32_t code_digits = 0;
};

// INVALID_ARGUMENT: not JSON, a field that is missing, empty or of the wrong type, an unknown slot.
absl::StatusOr<RecallTask> ParseRecallTask(const std::string& json);

// One code that a document tells, and the question that asks for it.
struct RecallFact {
  std::string name;
  std::string attribute;
  std::string code;
  std::string question;
  uint64_t end_tokens = 0;  // of the document, up to and with the fact's sentence
};

// Sentences, each but the first with the space before it, so that together they are the text.
struct RecallDocument {
  std::vector<std::string> sentences;
  std::vector<RecallFact> facts;  // in the order of the text
  uint64_t total_tokens = 0;
};

struct RecallOptions {
  uint64_t tokens = 16384;  // at least so many
  uint32_t facts = 32;
  uint64_t seed = 1;
};

// How many tokens a text has.
using TokenCounter = std::function<absl::StatusOr<uint64_t>(const std::string&)>;

// Draws a document: filler sentences, and facts in random places among them. The same task,
// options and counter give the same document on every machine. A (name, attribute) pair occurs in
// one fact at most. INVALID_ARGUMENT: more facts than pairs or than sentences, no tokens. Errors of
// the counter are handed on.
absl::StatusOr<RecallDocument> MakeRecallDocument(const RecallTask& task,
                                                  const RecallOptions& options,
                                                  const TokenCounter& count_tokens);

}  // namespace mneme

#endif  // MNEME_CLIENT_RECALL_DOCUMENT_H_
