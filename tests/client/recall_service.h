#ifndef MNEME_TESTS_CLIENT_RECALL_SERVICE_H_
#define MNEME_TESTS_CLIENT_RECALL_SERVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mneme {

// A server for tests of the client, over real gRPC on the loopback. Its tokens are words, its
// chunks 16 words long, and its memory perfect: to a user's turn "KEY WORDS?" it answers the word
// that follows KEY WORDS in what the session has read, or "unknown" if it is not there or the
// session is frozen. It continues a text with "and so on", and the text "forever" without an end.
class RecallService {
 public:
  static constexpr int kChunkSize = 16;

  RecallService();
  ~RecallService();

  // host:port.
  std::string address() const;

  // What the session has read; the messages that its appends came in.
  std::string text(const std::string& session_id) const;
  std::vector<std::string> pieces(const std::string& session_id) const;
  std::vector<std::string> session_ids() const;

  // The next export breaks off, UNAVAILABLE, when it has sent so many bytes.
  void BreakExportAt(size_t bytes);
  // The offsets at which exports have begun.
  std::vector<uint64_t> export_offsets() const;
  // Likewise of imports: the next one breaks off when so many bytes of a piece have come.
  void BreakImportAt(size_t bytes);
  std::vector<uint64_t> import_offsets() const;

  // From now on every append and generation ends with UNAVAILABLE, draining, retry after 1.5 s.
  void Drain();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mneme

#endif  // MNEME_TESTS_CLIENT_RECALL_SERVICE_H_
