// mneme sessions export, import.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/archive_import.h"
#include "client/commands.h"
#include "client/connection.h"
#include "client/progress_bar.h"
#include "client/status_text.h"
#include "mneme/v1/sessions.grpc.pb.h"

namespace mneme {
namespace {

constexpr char kPartial[] = ".part";

struct ArchiveOptions {
  std::string session_id;
  std::string file;
};

std::string Describe(uint64_t bytes, double elapsed_s) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return absl::StrFormat("%.1f MiB  %.1f MiB/s", mib, elapsed_s > 0 ? mib / elapsed_s : 0);
}

// What has come of an archive, in a file FILE.ID.part beside FILE until it is whole.
struct Partial {
  std::string archive_id;
  uint64_t size_bytes = 0;

  std::string PathFor(const std::string& file) const {
    return absl::StrCat(file, ".", archive_id, kPartial);
  }
};

// It is part of a file's name: not whatever the server says.
bool IsArchiveId(const std::string& id) {
  return !id.empty() && id.size() <= 64 &&
         std::all_of(id.begin(), id.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

// What an export to `file` that broke off has left; empty if there is nothing.
Partial FindPartial(const std::string& file) {
  const std::filesystem::path path(file);
  const std::string prefix = path.filename().string() + ".";
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(kPartial)) continue;
    const auto end = name.size() - (sizeof(kPartial) - 1);
    const std::string id = name.substr(prefix.size(), end - std::min(end, prefix.size()));
    if (IsArchiveId(id)) return {id, entry.file_size(error)};
  }
  return {};
}

// Where an archive's bytes go.
class PartialFile {
 public:
  PartialFile(std::string file, Partial* partial) : file_(std::move(file)), partial_(*partial) {}

  absl::Status Add(const v1::ExportSessionResponse& piece) {
    if (!out_.is_open()) {
      if (!IsArchiveId(piece.archive_id())) return absl::InternalError("the archive has no id");
      partial_.archive_id = piece.archive_id();
      whole_bytes_ = piece.size_bytes();
      out_.open(partial_.PathFor(file_), std::ios::binary | std::ios::app);
    }
    out_.write(piece.data().data(), static_cast<std::streamsize>(piece.data().size()));
    if (!out_.flush()) return absl::UnavailableError("cannot write beside " + file_);
    partial_.size_bytes += piece.data().size();
    return absl::OkStatus();
  }
  double fraction() const {
    return static_cast<double>(partial_.size_bytes) / static_cast<double>(whole_bytes_);
  }
  bool whole() const { return out_.is_open() && partial_.size_bytes == whole_bytes_; }

 private:
  const std::string file_;
  Partial& partial_;
  std::ofstream out_;
  uint64_t whole_bytes_ = 0;
};

// Streams the archive's bytes behind those of `*partial`, which grows, into its file.
absl::Status Receive(const ArchiveOptions& options, Console& console, const Connection& connection,
                     Partial* partial) {
  v1::ExportSessionRequest request;
  request.set_session_id(options.session_id);
  request.set_offset(partial->size_bytes);
  request.set_archive_id(partial->archive_id);
  Call call(connection);
  const auto stub = v1::SessionService::NewStub(connection.channel());
  const auto stream = stub->ExportSession(call.context(), request);
  ProgressBar bar("export", console);
  PartialFile file(options.file, partial);
  absl::Status written;
  v1::ExportSessionResponse piece;
  while (written.ok() && stream->Read(&piece)) {
    written = file.Add(piece);
    bar.Update(file.fraction(), Describe(partial->size_bytes, bar.elapsed_s()));
  }
  if (!written.ok()) call.context()->TryCancel();
  const absl::Status status = FromRpc(stream->Finish());
  MNEME_RETURN_IF_ERROR(written);
  MNEME_RETURN_IF_ERROR(status);
  if (!file.whole()) return absl::DataLossError("the archive is not whole");
  bar.Finish(Describe(partial->size_bytes, bar.elapsed_s()));
  return absl::OkStatus();
}

absl::Status RunExport(const ArchiveOptions& options, Console& console,
                       const Connection& connection) {
  Partial partial = FindPartial(options.file);
  absl::Status status = Receive(options, console, connection, &partial);
  const bool changed = absl::IsAborted(status) || absl::IsOutOfRange(status);
  if (changed && partial.size_bytes > 0) {
    std::remove(partial.PathFor(options.file).c_str());
    partial = {};
    status = Receive(options, console, connection, &partial);
  }
  if (!status.ok() && partial.size_bytes > 0) {
    console.err << "the same command goes on at byte " << partial.size_bytes << std::endl;
  }
  MNEME_RETURN_IF_ERROR(status);
  if (std::rename(partial.PathFor(options.file).c_str(), options.file.c_str()) != 0) {
    return absl::UnavailableError("cannot write " + options.file);
  }
  console.out << absl::StrFormat("session %s  archive %s  %d bytes\n", options.session_id,
                                 partial.archive_id, partial.size_bytes);
  return absl::OkStatus();
}

absl::Status RunImport(const ArchiveOptions& options, Console& console,
                       const Connection& connection) {
  return ImportArchive(options.file, options.session_id, console, connection);
}

using Run = absl::Status (*)(const ArchiveOptions&, Console&, const Connection&);

}  // namespace

void AddArchiveCommands(CLI::App& sessions, CommandLine& line) {
  const auto add = [&](const char* name, const char* help, Run run) {
    auto options = std::make_shared<ArchiveOptions>();
    CLI::App* command = sessions.add_subcommand(name, help);
    command->callback([options, run, &line] {
      line.run = [options, run, &line](const Connection& connection) {
        return run(*options, line.console, connection);
      };
    });
    return std::make_pair(command, options);
  };
  const auto [to_file, exported] = add("export", "Write a session to a file", RunExport);
  to_file->add_option("session", exported->session_id, "The session's id")->required();
  to_file
      ->add_option("file", exported->file,
                   "Its archive; what is there of it while it is not whole is FILE.ID.part, and "
                   "the same command goes on with it")
      ->required();
  const auto [from_file, imported] =
      add("import", "Make a session of such a file; what broke off goes on", RunImport);
  from_file->add_option("file", imported->file, "The archive")->required();
  from_file->add_option("session", imported->session_id,
                        "The new session's id; absent: the server draws one");
}

}  // namespace mneme
