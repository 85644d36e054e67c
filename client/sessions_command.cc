// mneme sessions: create, get, list, update, fork, rollback, checkpoint, delete; archive_commands
// has the rest.

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/session_calls.h"
#include "client/status_text.h"
#include "mneme/v1/sessions.grpc.pb.h"

namespace mneme {
namespace {

constexpr char kHelp[] = R"(Examples:
  mneme sessions create reader --label book=emma --ttl 3600
  mneme sessions create frozen --freeze true
  mneme sessions list
  mneme sessions get reader
  mneme sessions update reader --clip_norm 0.5 --ttl 0
  mneme sessions fork reader what-if --at 4096
  mneme sessions rollback reader 4096
  mneme sessions export reader reader.mneme
  mneme sessions import reader.mneme copy
  mneme sessions checkpoint reader --name before-quiz
  mneme sessions rollback reader --checkpoint before-quiz
  mneme sessions delete reader)";

struct SessionOptions {
  std::string session_id;
  std::vector<std::string> labels;  // "KEY=VALUE"
  std::optional<double> ttl_s;
  std::optional<float> clip_norm, decay, lr_scale, max_relative_norm;
  std::optional<bool> freeze;
  std::optional<uint32_t> max_lag_chunks;
  uint32_t page_size = 100;
  std::string new_session_id;
  std::optional<uint64_t> position;
  std::string checkpoint;
};

void PrintSession(const v1::Session& session, std::ostream& out) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  if (google::protobuf::util::MessageToJsonString(session, &json, options).ok()) out << json;
}

void PrintRow(const v1::Session& session, std::ostream& out) {
  const uint64_t bytes = session.device_bytes() + session.host_bytes() + session.disk_bytes();
  out << absl::StrFormat(
      "%-36s %10d %8d %9.1f  %-10s %s\n", session.session_id(), session.position(),
      ChunksClosed(session), static_cast<double>(bytes) / (1 << 20),
      std::string(absl::StripPrefix(v1::SessionState_Name(session.state()), "SESSION_STATE_")),
      google::protobuf::util::TimeUtil::ToString(session.last_used_time()));
}

absl::Status FillLabels(const std::vector<std::string>& labels, v1::Session& session) {
  for (const std::string& label : labels) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (label.find('=') == std::string::npos || parts.first.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--label ", label, ": not KEY=VALUE"));
    }
    (*session.mutable_labels())[parts.first] = parts.second;
  }
  return absl::OkStatus();
}

// The session that the options describe, and in `mask` the paths that they name.
absl::StatusOr<v1::Session> Describe(const SessionOptions& options,
                                     google::protobuf::FieldMask& mask) {
  v1::Session session;
  session.set_session_id(options.session_id);
  MNEME_RETURN_IF_ERROR(FillLabels(options.labels, session));
  if (!options.labels.empty()) mask.add_paths("labels");
  if (options.ttl_s) {
    mask.add_paths("ttl");  // 0: the field stays absent, which clears it
    if (*options.ttl_s > 0) {
      *session.mutable_ttl() = google::protobuf::util::TimeUtil::MillisecondsToDuration(
          static_cast<int64_t>(*options.ttl_s * 1e3));
    }
  }
  v1::LearningControls& controls = *session.mutable_controls();
  const auto set = [&](const char* path, const auto& value, auto setter) {
    if (!value) return;
    mask.add_paths(path);
    (controls.*setter)(*value);
  };
  set("controls.clip_norm", options.clip_norm, &v1::LearningControls::set_clip_norm);
  set("controls.decay", options.decay, &v1::LearningControls::set_decay);
  set("controls.lr_scale", options.lr_scale, &v1::LearningControls::set_lr_scale);
  set("controls.max_relative_norm", options.max_relative_norm,
      &v1::LearningControls::set_max_relative_norm);
  set("controls.freeze", options.freeze, &v1::LearningControls::set_freeze);
  set("controls.max_lag_chunks", options.max_lag_chunks, &v1::LearningControls::set_max_lag_chunks);
  const bool deferred = options.max_lag_chunks.value_or(0) > 0;
  controls.set_update_mode(deferred ? v1::UPDATE_MODE_DEFERRED : v1::UPDATE_MODE_EXACT);
  return session;
}

absl::Status RunCreate(const SessionOptions& options, Console& console,
                       const Connection& connection) {
  google::protobuf::FieldMask unused;
  MNEME_ASSIGN_OR_RETURN(const v1::Session wanted, Describe(options, unused));
  v1::CreateSessionRequest request;
  if (!options.session_id.empty()) request.set_session_id(options.session_id);
  *request.mutable_controls() = wanted.controls();
  *request.mutable_labels() = wanted.labels();
  if (wanted.has_ttl()) *request.mutable_ttl() = wanted.ttl();
  MNEME_ASSIGN_OR_RETURN(const v1::Session session, CreateSession(connection, request));
  console.out << session.session_id() << std::endl;
  return absl::OkStatus();
}

absl::Status RunGet(const SessionOptions& options, Console& console, const Connection& connection) {
  MNEME_ASSIGN_OR_RETURN(const v1::Session session, GetSession(connection, options.session_id));
  PrintSession(session, console.out);
  return absl::OkStatus();
}

absl::Status RunUpdate(const SessionOptions& options, Console& console,
                       const Connection& connection) {
  v1::UpdateSessionRequest request;
  MNEME_ASSIGN_OR_RETURN(*request.mutable_session(),
                         Describe(options, *request.mutable_update_mask()));
  MNEME_ASSIGN_OR_RETURN(const v1::Session session, UpdateSession(connection, request));
  PrintSession(session, console.out);
  return absl::OkStatus();
}

absl::Status RunFork(const SessionOptions& options, Console& console,
                     const Connection& connection) {
  v1::ForkSessionRequest request;
  request.set_session_id(options.session_id);
  if (!options.new_session_id.empty()) request.set_new_session_id(options.new_session_id);
  if (options.position) request.set_at_position(*options.position);
  request.set_checkpoint(options.checkpoint);
  MNEME_ASSIGN_OR_RETURN(const v1::Session session, ForkSession(connection, request));
  console.out << session.session_id() << std::endl;
  return absl::OkStatus();
}

absl::Status RunRollback(const SessionOptions& options, Console& console,
                         const Connection& connection) {
  if (!options.position && options.checkpoint.empty()) {
    return absl::InvalidArgumentError("say where to: a position, or --checkpoint NAME");
  }
  v1::RollbackSessionRequest request;
  request.set_session_id(options.session_id);
  if (options.position) request.set_to_position(*options.position);
  request.set_checkpoint(options.checkpoint);
  MNEME_ASSIGN_OR_RETURN(const v1::Session session, RollbackSession(connection, request));
  PrintSession(session, console.out);
  return absl::OkStatus();
}

absl::Status RunCheckpoint(const SessionOptions& options, Console& console,
                           const Connection& connection) {
  v1::CheckpointSessionRequest request;
  request.set_session_id(options.session_id);
  request.set_name(options.checkpoint);
  MNEME_ASSIGN_OR_RETURN(const v1::CheckpointSessionResponse checkpoint,
                         CheckpointSession(connection, request));
  console.out << "position " << checkpoint.position() << ", " << checkpoint.checkpoint_bytes()
              << " bytes" << std::endl;
  return absl::OkStatus();
}

absl::Status RunDelete(const SessionOptions& options, Console&, const Connection& connection) {
  return DeleteSession(connection, options.session_id);
}

absl::Status RunList(const SessionOptions& options, Console& console,
                     const Connection& connection) {
  const auto stub = v1::SessionService::NewStub(connection.channel());
  v1::ListSessionsRequest request;
  request.set_page_size(options.page_size);
  console.out << absl::StrFormat("%-36s %10s %8s %9s  %-10s %s\n", "session", "position", "chunks",
                                 "MiB", "state", "last used");
  do {
    Call call(connection);
    v1::ListSessionsResponse response;
    MNEME_RETURN_IF_ERROR(FromRpc(stub->ListSessions(call.context(), request, &response)));
    for (const v1::Session& session : response.sessions()) PrintRow(session, console.out);
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return absl::OkStatus();
}

void AddDescription(CLI::App& command, SessionOptions& options) {
  command.add_option("--label", options.labels, "KEY=VALUE; may be given many times")
      ->allow_extra_args(false);
  command.add_option("--ttl", options.ttl_s, "Seconds without use until it is deleted; 0: never");
  const auto add = [&](const char* name, auto& value, const char* help) {
    command.add_option(name, value, help)->group("Learning controls");
  };
  add("--freeze", options.freeze, "true: read, but learn nothing");
  add("--lr_scale", options.lr_scale, "Factor on the learning rate");
  add("--clip_norm", options.clip_norm, "Largest norm of an update; 0: no limit");
  add("--decay", options.decay, "What each update forgets of the fast weights, in [0, 1)");
  add("--max_relative_norm", options.max_relative_norm,
      "Largest norm of the fast weights relative to the weights; 0: no limit");
  add("--max_lag_chunks", options.max_lag_chunks,
      "Chunks whose updates may wait while tokens go on; 0: none (exact mode)");
}

using Run = absl::Status (*)(const SessionOptions&, Console&, const Connection&);

}  // namespace

void AddSessionsCommand(CLI::App& app, CommandLine& line) {
  CLI::App* sessions = app.add_subcommand("sessions", "Create, look at and delete sessions");
  sessions->require_subcommand(1)->footer(kHelp);
  auto options = std::make_shared<SessionOptions>();
  const auto add = [&](const char* name, const char* help, Run run) {
    CLI::App* command = sessions->add_subcommand(name, help);
    command->callback([options, run, &line] {
      line.run = [options, run, &line](const Connection& connection) {
        return run(*options, line.console, connection);
      };
    });
    return command;
  };
  const auto add_id = [&](CLI::App* command) {
    return command->add_option("session", options->session_id, "The session's id");
  };
  CLI::App* create = add("create", "Make a session and print its id", RunCreate);
  add_id(create)->description("Its id; absent: the server draws one");
  AddDescription(*create, *options);
  add_id(add("get", "Print a session as JSON", RunGet))->required();
  add("list", "List the sessions", RunList)
      ->add_option("--page_size", options->page_size, "Sessions asked for at once");
  CLI::App* update = add("update", "Change labels, ttl or learning controls", RunUpdate);
  add_id(update)->required();
  AddDescription(*update, *options);
  CLI::App* fork = add("fork", "Make a session that has read what another has", RunFork);
  add_id(fork)->required();
  fork->add_option("new_session", options->new_session_id,
                   "The new session's id; absent: the server draws one");
  fork->add_option("--at", options->position, "Of what it has read, only so many tokens");
  const auto add_checkpoint = [&](CLI::App* command, const char* flag, const char* help) {
    command->add_option(flag, options->checkpoint, help)->type_name("NAME");
  };
  add_checkpoint(fork, "--checkpoint", "As it was when the checkpoint of this name was taken");
  CLI::App* rollback = add("rollback", "Forget what a session has read since", RunRollback);
  add_id(rollback)->required();
  rollback->add_option("position", options->position, "Its new length in tokens");
  add_checkpoint(rollback, "--checkpoint", "To where it was when this checkpoint was taken");
  CLI::App* checkpoint = add(
      "checkpoint", "Write what a session has computed to the server's disk now", RunCheckpoint);
  add_id(checkpoint)->required();
  add_checkpoint(checkpoint, "--name", "Keep it under this name, for fork and rollback");
  AddArchiveCommands(*sessions, line);
  add_id(add("delete", "Delete a session and all it has learnt", RunDelete))->required();
}

}  // namespace mneme
