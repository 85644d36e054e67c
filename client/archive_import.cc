#include "client/archive_import.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <ostream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/progress_bar.h"
#include "client/status_text.h"
#include "mneme/v1/sessions.grpc.pb.h"

namespace mneme {
namespace {

constexpr size_t kPieceBytes = 256 * 1024;
constexpr int kMaxTries = 6;  // one after the other of which none has brought a byte further

struct FreeHash {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};
using Hash = std::unique_ptr<XXH3_state_t, FreeHash>;

// One archive on its way to a server, in as many streams as it takes.
class Import {
 public:
  Import(std::string file, std::string session_id, Console& console, const Connection& connection)
      : file_(std::move(file)),
        session_id_(std::move(session_id)),
        console_(console),
        connection_(connection) {}

  absl::Status Run() {
    MNEME_RETURN_IF_ERROR(Open());
    grpc::Status status;
    uint64_t furthest = 0;
    for (int tries = 0; tries < kMaxTries; ++tries) {
      status = SendFrom(offset_);
      if (status.ok()) return absl::OkStatus();
      const std::optional<uint64_t> held = OffsetOf(status);
      if (!held && status.error_code() != grpc::StatusCode::UNAVAILABLE) break;
      // What has come of the rest is told when it is gone on with behind it.
      offset_ = std::min(held.value_or(sent_), size_bytes_);
      if (held.value_or(0) > furthest) {
        tries = 0;
        furthest = *held;
      }
      held ? TellGoingOn() : Wait(tries);
    }
    return FromRpc(status);
  }

 private:
  absl::Status Open() {
    in_.open(file_, std::ios::binary);
    if (!in_) return absl::NotFoundError("cannot open " + file_);
    std::error_code error;
    size_bytes_ = std::filesystem::file_size(file_, error);
    const XXH128_hash_t name =
        XXH3_128bits_withSeed(session_id_.data(), session_id_.size(), HashOf(size_bytes_));
    import_id_ = absl::StrFormat("%016x%016x", name.high64, name.low64);
    return absl::OkStatus();
  }

  // Of the file's first `bytes`; the next that is read is behind them.
  uint64_t HashOf(uint64_t bytes) {
    const Hash hash(XXH3_createState());
    XXH3_64bits_reset(hash.get());
    in_.clear();
    in_.seekg(0);
    std::string piece(kPieceBytes, '\0');
    while (bytes > 0 && in_) {
      in_.read(piece.data(), static_cast<std::streamsize>(std::min<uint64_t>(bytes, kPieceBytes)));
      const auto count = static_cast<size_t>(in_.gcount());
      XXH3_64bits_update(hash.get(), piece.data(), count);
      bytes -= count;
    }
    return XXH3_64bits_digest(hash.get());
  }

  grpc::Status SendFrom(uint64_t offset) {
    v1::ImportSessionRequest message;
    if (!session_id_.empty()) message.set_session_id(session_id_);
    message.set_import_id(import_id_);
    message.set_offset(offset);
    message.set_offset_xxh3(HashOf(offset));
    Call call(connection_);
    const auto stub = v1::SessionService::NewStub(connection_.channel());
    v1::Session session;
    const auto stream = stub->ImportSession(call.context(), &session);
    sent_ = offset;
    SendPieces(std::move(message), *stream);
    grpc::Status status = stream->Finish();
    if (status.ok()) console_.out << session.session_id() << std::endl;
    return status;
  }

  // A failed write is no error here: the call's own status says why it ended.
  void SendPieces(v1::ImportSessionRequest message,
                  grpc::ClientWriterInterface<v1::ImportSessionRequest>& stream) {
    ProgressBar bar("import", console_);
    const auto detail = [&] {
      const double mib = static_cast<double>(sent_) / (1 << 20);
      return absl::StrFormat("%.1f MiB", mib);
    };
    std::string piece(kPieceBytes, '\0');
    bool more = true;
    while (more) {
      in_.read(piece.data(), static_cast<std::streamsize>(piece.size()));
      const auto count = static_cast<size_t>(in_.gcount());
      message.set_data(piece.substr(0, count));
      more = static_cast<bool>(in_);
      if (!stream.Write(message)) return;
      message.Clear();
      sent_ += count;
      const auto whole = static_cast<double>(std::max<uint64_t>(size_bytes_, 1));
      bar.Update(static_cast<double>(sent_) / whole, detail());
    }
    if (stream.WritesDone()) bar.Finish(detail());
  }

  void TellGoingOn() {
    console_.err << (offset_ > 0 ? absl::StrCat("going on at byte ", offset_)
                                 : std::string("beginning anew: the server has kept nothing"))
                 << std::endl;
  }

  // For a server that is there again; longer from try to try.
  void Wait(int tries) {
    console_.err << "the import broke off; trying to go on" << std::endl;
    const auto now = std::chrono::system_clock::now();
    connection_.channel()->WaitForConnected(now + std::chrono::seconds(5));
    if (tries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(250 << tries));
  }

  const std::string file_, session_id_;
  Console& console_;
  const Connection& connection_;
  std::ifstream in_;
  uint64_t size_bytes_ = 0;
  std::string import_id_;  // the same for the same file and session
  uint64_t offset_ = 0;    // where the next stream begins
  uint64_t sent_ = 0;      // up to where the last one came
};

}  // namespace

absl::Status ImportArchive(const std::string& file, const std::string& session_id, Console& console,
                           const Connection& connection) {
  return Import(file, session_id, console, connection).Run();
}

}  // namespace mneme
