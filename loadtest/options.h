#ifndef MNEME_LOADTEST_OPTIONS_H_
#define MNEME_LOADTEST_OPTIONS_H_

#include <cstdint>
#include <string>

namespace mneme {

enum class Scenario { kChat, kIngest, kMixed };

// What load to make. Numbers of tokens are means: each is drawn between half and one and a half.
struct LoadOptions {
  std::string server = "127.0.0.1:50051";  // host:port
  Scenario scenario = Scenario::kChat;
  double rate = 1;              // sessions and documents that arrive in a second
  double document_share = 0.2;  // of the arrivals of kMixed
  double duration_s = 10;       // how long they arrive; those under way then go on to their end
  int64_t turns = 3;            // of a chat session
  double think_s = 1;           // mean time between an answer's end and the next turn
  int64_t input_tokens = 64;    // of a turn
  int64_t output_tokens = 64;   // of a turn
  int64_t document_tokens = 4096;
  int64_t piece_tokens = 512;  // of one message of a document
  bool text = false;           // words in place of token ids; counts are then of words

  double cancel_fraction = 0;       // of the streams
  double slow_reader_fraction = 0;  // of the streams
  double pause_s = 0.05;            // that a slow reader makes after each event
  double check_fraction = 0;        // of the chat sessions
  double tie_tolerance = 0;         // of log-probabilities: closer ones may be exchanged
  double deadline_s = 0;            // of a request, from its scheduled start; 0: none
  int64_t retries = 0;              // of a request that got RESOURCE_EXHAUSTED
  int64_t max_in_flight = 1024;     // sessions and documents at once
  uint64_t seed = 1;
  bool keep = false;      // leave the sessions on the server
  std::string json_file;  // empty: none
};

}  // namespace mneme

#endif  // MNEME_LOADTEST_OPTIONS_H_
