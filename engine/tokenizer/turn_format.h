#ifndef MNEME_ENGINE_TOKENIZER_TURN_FORMAT_H_
#define MNEME_ENGINE_TOKENIZER_TURN_FORMAT_H_

#include <filesystem>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mneme {

class Tokenizer;

// What stands before and after a message of each role. A session can only grow, so a turn is
// written once and never rewritten.
struct TurnFormat {
  struct Role {
    std::string prefix;
    std::string suffix;
  };

  std::string name;
  std::map<std::string, Role> roles;  // "assistant" is always there

  // The built-in formats:
  //   chatml  <|im_start|>ROLE\n CONTENT <|im_end|>\n
  //   llama3  <|start_header_id|>ROLE<|end_header_id|>\n\n CONTENT <|eot_id|>
  //   plain   ROLE:\n CONTENT \n\n, with no special tokens
  // for the roles system, user, assistant and tool (in llama3 under its header name, ipython).
  // INVALID_ARGUMENT, naming the known ones, for another name.
  static absl::StatusOr<TurnFormat> ByName(absl::string_view name);

  // Reads {"name": "...", "roles": {"ROLE": {"prefix": "...", "suffix": "..."}, ...}}. NOT_FOUND if
  // there is no such file; INVALID_ARGUMENT if it is broken or lacks the role assistant.
  static absl::StatusOr<TurnFormat> FromFile(const std::filesystem::path& path);
  static absl::StatusOr<TurnFormat> FromJson(absl::string_view json);
};

// The format of a model where none was asked for: model_dir/turn_format.json if it is there, else
// chatml or llama3 if the vocabulary has its tokens as special ones, else plain. Statuses of
// FromFile but NOT_FOUND.
absl::StatusOr<TurnFormat> DefaultTurnFormat(const std::filesystem::path& model_dir,
                                             const Tokenizer& tokenizer);

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_TURN_FORMAT_H_
