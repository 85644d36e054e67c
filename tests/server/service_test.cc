// Everything but Append and Generate.

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/server/server_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class ServiceTest : public ServerFixture {
 protected:
  // Calls `method` of `stub` with a context of its own.
  template <typename Stub, typename Request, typename Response>
  static grpc::Status Call(Stub& stub,
                           grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                        Response*),
                           const Request& request, Response* response) {
    grpc::ClientContext context;
    return (stub.*method)(&context, request, response);
  }

  grpc::Status Create(const v1::CreateSessionRequest& request, v1::Session* session) {
    return Call(*sessions_, &v1::SessionService::Stub::CreateSession, request, session);
  }
  grpc::Status Update(const v1::UpdateSessionRequest& request, v1::Session* session) {
    return Call(*sessions_, &v1::SessionService::Stub::UpdateSession, request, session);
  }
  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& service) {
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(Call(*health_, &grpc::health::v1::Health::Stub::Check, request, &response).ok());
    return response.status();
  }
};

TEST_F(ServiceTest, CreatesASessionAsAsked) {
  v1::CreateSessionRequest request;
  request.set_session_id("s");
  request.mutable_controls()->set_clip_norm(0.5F);
  request.mutable_controls()->set_freeze(true);
  (*request.mutable_labels())["book"] = "one";
  request.mutable_ttl()->set_seconds(90);
  request.mutable_ttl()->set_nanos(500'000'000);
  v1::Session session;
  ASSERT_TRUE(Create(request, &session).ok());
  EXPECT_EQ(session.session_id(), "s");
  EXPECT_EQ(session.model(), "toy");
  EXPECT_EQ(session.chunk_size(), 16);
  EXPECT_EQ(session.controls().clip_norm(), 0.5F);
  EXPECT_TRUE(session.controls().freeze());
  EXPECT_FALSE(session.controls().has_decay());
  EXPECT_THAT(session.labels(), UnorderedElementsAre(Pair("book", "one")));
  EXPECT_EQ(session.ttl().seconds(), 90);
  EXPECT_EQ(session.ttl().nanos(), 500'000'000);
  EXPECT_EQ(session.create_time().seconds(), 1000);
  EXPECT_EQ(session.state(), v1::SESSION_STATE_ACTIVE);

  const grpc::Status again = Create(request, &session);
  EXPECT_EQ(again.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(DetailOf(again).reason(), v1::ERROR_REASON_SESSION_EXISTS);
}

TEST_F(ServiceTest, DrawsAnIdOnlyIfNoneIsGiven) {
  v1::Session session;
  EXPECT_TRUE(Create({}, &session).ok());
  EXPECT_EQ(session.session_id(), "drawn");
  v1::CreateSessionRequest empty_id;
  empty_id.set_session_id("");
  EXPECT_EQ(Create(empty_id, &session).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, RefusesBadSessionFields) {
  const auto field = [this](const v1::CreateSessionRequest& request) {
    v1::Session session;
    const grpc::Status status = Create(request, &session);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return DetailOf(status).field();
  };
  v1::CreateSessionRequest id;
  id.set_session_id("a/b");
  EXPECT_EQ(field(id), "session_id");
  v1::CreateSessionRequest labels;
  for (int i = 0; i < 65; ++i) (*labels.mutable_labels())[std::to_string(i)] = "";
  EXPECT_EQ(field(labels), "labels");
  v1::CreateSessionRequest label;
  (*label.mutable_labels())["key"] = std::string(256, 'x');
  EXPECT_EQ(field(label), "labels");
  for (const auto& [seconds, nanos] :
       std::vector<std::pair<int64_t, int32_t>>{{0, 0},
                                                {-1, 0},
                                                {1, -1},
                                                {1, 1'000'000'000},
                                                {std::numeric_limits<int64_t>::max(), 0}}) {
    v1::CreateSessionRequest ttl;
    ttl.mutable_ttl()->set_seconds(seconds);
    ttl.mutable_ttl()->set_nanos(nanos);
    EXPECT_EQ(field(ttl), "ttl") << seconds << " " << nanos;
  }
  v1::CreateSessionRequest mode;
  mode.mutable_controls()->set_update_mode(static_cast<v1::UpdateMode>(7));
  EXPECT_EQ(field(mode), "controls.update_mode");
  for (const auto& [update_mode, max_lag_chunks] : std::vector<std::pair<v1::UpdateMode, uint32_t>>{
           {v1::UPDATE_MODE_UNSPECIFIED, 1},
           {v1::UPDATE_MODE_EXACT, 1},
           {v1::UPDATE_MODE_DEFERRED, 0},
           {v1::UPDATE_MODE_DEFERRED, 65},
           {v1::UPDATE_MODE_DEFERRED, std::numeric_limits<uint32_t>::max()}}) {
    v1::CreateSessionRequest lag;
    lag.mutable_controls()->set_update_mode(update_mode);
    lag.mutable_controls()->set_max_lag_chunks(max_lag_chunks);
    EXPECT_EQ(field(lag), "controls.max_lag_chunks") << update_mode << " " << max_lag_chunks;
  }
}

TEST_F(ServiceTest, UpdateModeAndItsLagAreOneSetting) {
  v1::CreateSessionRequest create;
  create.set_session_id("s");
  create.mutable_controls()->set_clip_norm(0.5F);
  create.mutable_controls()->set_update_mode(v1::UPDATE_MODE_DEFERRED);
  create.mutable_controls()->set_max_lag_chunks(3);
  v1::Session session;
  ASSERT_TRUE(Create(create, &session).ok());
  EXPECT_EQ(session.controls().update_mode(), v1::UPDATE_MODE_DEFERRED);
  EXPECT_EQ(session.controls().max_lag_chunks(), 3u);

  v1::UpdateSessionRequest update;
  update.mutable_session()->set_session_id("s");
  update.mutable_session()->mutable_controls()->set_max_lag_chunks(5);
  update.mutable_update_mask()->add_paths("controls.max_lag_chunks");
  EXPECT_EQ(DetailOf(Update(update, &session)).field(), "controls.max_lag_chunks")
      << "the mode is missing";
  update.mutable_session()->mutable_controls()->set_update_mode(v1::UPDATE_MODE_DEFERRED);
  ASSERT_TRUE(Update(update, &session).ok());
  EXPECT_EQ(session.controls().max_lag_chunks(), 5u);

  update.mutable_session()->clear_controls();
  update.mutable_session()->mutable_controls()->set_update_mode(v1::UPDATE_MODE_EXACT);
  update.mutable_update_mask()->set_paths(0, "controls.update_mode");
  ASSERT_TRUE(Update(update, &session).ok());
  EXPECT_EQ(session.controls().update_mode(), v1::UPDATE_MODE_EXACT);
  EXPECT_EQ(session.controls().max_lag_chunks(), 0u);
  EXPECT_EQ(session.controls().clip_norm(), 0.5F);
}

TEST_F(ServiceTest, UpdatesWhatTheMaskNamesAndNothingElse) {
  v1::CreateSessionRequest create;
  create.set_session_id("s");
  create.mutable_controls()->set_clip_norm(0.5F);
  (*create.mutable_labels())["book"] = "one";
  create.mutable_ttl()->set_seconds(9);
  v1::Session session;
  ASSERT_TRUE(Create(create, &session).ok());

  v1::UpdateSessionRequest update;
  update.mutable_session()->set_session_id("s");
  update.mutable_session()->mutable_controls()->set_freeze(true);
  update.mutable_update_mask()->add_paths("controls.freeze");
  update.mutable_update_mask()->add_paths("ttl");
  ASSERT_TRUE(Update(update, &session).ok());
  EXPECT_TRUE(session.controls().freeze());
  EXPECT_EQ(session.controls().clip_norm(), 0.5F);
  EXPECT_FALSE(session.has_ttl());
  EXPECT_EQ(session.labels().at("book"), "one");

  update.mutable_update_mask()->clear_paths();
  update.mutable_update_mask()->add_paths("controls");
  update.mutable_update_mask()->add_paths("labels");
  ASSERT_TRUE(Update(update, &session).ok());
  EXPECT_FALSE(session.controls().has_clip_norm());
  EXPECT_TRUE(session.labels().empty());
}

TEST_F(ServiceTest, RefusesAnEmptyOrUnknownMask) {
  ASSERT_TRUE(CreateSession("s").ok());
  v1::Session session;
  v1::UpdateSessionRequest update;
  update.mutable_session()->set_session_id("s");
  EXPECT_EQ(Update(update, &session).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  for (const char* path : {"position", "controls.unknown", "controls.", "label", ""}) {
    update.mutable_update_mask()->clear_paths();
    update.mutable_update_mask()->add_paths(path);
    const grpc::Status status = Update(update, &session);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << path;
    EXPECT_EQ(DetailOf(status).field(), "update_mask");
  }
}

TEST_F(ServiceTest, AnUnknownSessionIsNotFound) {
  v1::Session session;
  v1::GetSessionRequest get;
  get.set_session_id("nobody");
  const grpc::Status status =
      Call(*sessions_, &v1::SessionService::Stub::GetSession, get, &session);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_SESSION_NOT_FOUND);
  v1::DeleteSessionRequest erase;
  erase.set_session_id("nobody");
  v1::DeleteSessionResponse erased;
  EXPECT_EQ(Call(*sessions_, &v1::SessionService::Stub::DeleteSession, erase, &erased).error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::UpdateSessionRequest update;
  update.mutable_session()->set_session_id("nobody");
  update.mutable_update_mask()->add_paths("ttl");
  EXPECT_EQ(Update(update, &session).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServiceTest, ListsSessionsPageByPage) {
  for (const char* id : {"a", "b", "c", "d", "e"}) ASSERT_TRUE(CreateSession(id).ok());
  std::vector<std::string> ids;
  v1::ListSessionsRequest request;
  request.set_page_size(2);
  do {
    v1::ListSessionsResponse page;
    ASSERT_TRUE(Call(*sessions_, &v1::SessionService::Stub::ListSessions, request, &page).ok());
    EXPECT_LE(page.sessions_size(), 2);
    for (const v1::Session& session : page.sessions()) ids.push_back(session.session_id());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(ids, ElementsAre("a", "b", "c", "d", "e"));
}

TEST_F(ServiceTest, RefusesAForgedPageToken) {
  for (const char* token : {"b", "!!!", "YQ", "YWZ0ZXI9YQ=="}) {
    v1::ListSessionsRequest request;
    request.set_page_token(token);
    v1::ListSessionsResponse page;
    EXPECT_EQ(
        Call(*sessions_, &v1::SessionService::Stub::ListSessions, request, &page).error_code(),
        grpc::StatusCode::INVALID_ARGUMENT)
        << token;
  }
}

TEST_F(ServiceTest, CancelFindsARunningRequestOrSaysSo) {
  v1::CancelRequest request;
  request.set_session_id("s");
  request.set_request_id("running");
  v1::CancelResponse response;
  const auto cancel = [&] {
    return Call(*inference_, &v1::InferenceService::Stub::Cancel, request, &response);
  };
  EXPECT_TRUE(cancel().ok());
  request.set_request_id("over");
  const grpc::Status status = cancel();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_REQUEST_NOT_FOUND);
  request.set_request_id("");
  EXPECT_EQ(cancel().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, TextNeedsATokenizer) {
  v1::TokenizeResponse ids;
  EXPECT_EQ(Call(*inference_, &v1::InferenceService::Stub::Tokenize, v1::TokenizeRequest(), &ids)
                .error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  v1::DetokenizeResponse text;
  EXPECT_EQ(
      Call(*inference_, &v1::InferenceService::Stub::Detokenize, v1::DetokenizeRequest(), &text)
          .error_code(),
      grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(ServiceTest, DescribesServerModelAndLoad) {
  v1::GetServerInfoResponse server;
  ASSERT_TRUE(
      Call(*admin_, &v1::AdminService::Stub::GetServerInfo, v1::GetServerInfoRequest(), &server)
          .ok());
  EXPECT_EQ(server.api(), "mneme.v1");
  EXPECT_EQ(server.backend(), "cpu");
  EXPECT_EQ(server.max_message_bytes(), kMaxMessageBytes);
  v1::GetModelInfoResponse model;
  ASSERT_TRUE(
      Call(*admin_, &v1::AdminService::Stub::GetModelInfo, v1::GetModelInfoRequest(), &model).ok());
  EXPECT_EQ(model.name(), "toy");
  EXPECT_EQ(model.vocab_size(), 100);
  EXPECT_EQ(model.context_limit_tokens(), 4096);
  EXPECT_EQ(model.sliding_window_tokens(), 64);
  EXPECT_THAT(model.ttt().layers(), ElementsAre(1));
  EXPECT_EQ(model.ttt().delta_bytes(), 4 * 8 * 16);
  v1::GetLoadResponse load;
  ASSERT_TRUE(Call(*admin_, &v1::AdminService::Stub::GetLoad, v1::GetLoadRequest(), &load).ok());
  EXPECT_EQ(load.sessions(), 3);
  EXPECT_EQ(load.device_bytes_limit(), 30);
  EXPECT_EQ(load.device_bytes_reserved(), 20);
  EXPECT_EQ(load.queued_requests(), 4);
  EXPECT_EQ(load.waiting_chunks(), 7u);
  EXPECT_EQ(load.step_time().nanos(), 5'000'000);
  EXPECT_EQ(load.step_time_use(), 0.5);
  EXPECT_EQ(load.target_inter_token().nanos(), 8'000'000);
  EXPECT_EQ(load.idle_sessions(), 1);
  ASSERT_EQ(load.tenants_size(), 1);
  EXPECT_EQ(load.tenants(0).tenant(), "alice");
  EXPECT_EQ(load.tenants(0).running_requests(), 2);
  EXPECT_EQ(load.tenants(0).share(), 0.25);
  EXPECT_FALSE(load.draining());
}

TEST_F(ServiceTest, WhatIsNotThereYetIsUnimplemented) {
  const auto refuses = [](const grpc::Status& status, const std::string& rpc) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << rpc;
    EXPECT_THAT(status.error_message(), HasSubstr(rpc));
    EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_UNIMPLEMENTED);
  };
  using Sessions = v1::SessionService::Stub;
  v1::InspectSessionResponse inspection;
  refuses(Call(*sessions_, &Sessions::InspectSession, v1::InspectSessionRequest(), &inspection),
          "InspectSession");
  v1::DrainResponse drained;
  refuses(Call(*admin_, &v1::AdminService::Stub::Drain, v1::DrainRequest(), &drained), "Drain");
}

TEST_F(ServiceTest, ArchiveStreamsThatSayNothingAreRefused) {
  {
    grpc::ClientContext context;
    const auto stream = sessions_->ExportSession(&context, v1::ExportSessionRequest());
    v1::ExportSessionResponse piece;
    EXPECT_FALSE(stream->Read(&piece));
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  grpc::ClientContext context;
  v1::Session session;
  const auto stream = sessions_->ImportSession(&context, &session);
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_EMPTY_INPUT);
}

TEST_F(ServiceTest, HealthFollowsTheServer) {
  const std::vector<std::string> services = {"", "mneme.v1.SessionService",
                                             "mneme.v1.InferenceService", "mneme.v1.AdminService"};
  for (const auto& service : services) {
    EXPECT_EQ(Health(service), grpc::health::v1::HealthCheckResponse::SERVING) << service;
  }
  server_->SetServing(false);
  for (const auto& service : services) {
    EXPECT_EQ(Health(service), grpc::health::v1::HealthCheckResponse::NOT_SERVING) << service;
  }
  v1::GetLoadResponse load;
  ASSERT_TRUE(Call(*admin_, &v1::AdminService::Stub::GetLoad, v1::GetLoadRequest(), &load).ok());
  EXPECT_TRUE(load.draining());
}

// The reflection protocol's own messages are not installed: the answer to "list services", which is
// sent as raw bytes, must name ours.
TEST_F(ServiceTest, ReflectionNamesTheServices) {
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    return ok;
  };
  const auto stream = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  stream->StartCall(nullptr);
  ASSERT_TRUE(next());
  const grpc::Slice list_services(std::string("\x3a\x01*", 3));  // field 7, "*"
  stream->Write(grpc::ByteBuffer(&list_services, 1), nullptr);
  ASSERT_TRUE(next());
  grpc::ByteBuffer answer;
  stream->Read(&answer, nullptr);
  ASSERT_TRUE(next());
  grpc::Slice slice;
  ASSERT_TRUE(answer.DumpToSingleSlice(&slice).ok());
  const std::string text(reinterpret_cast<const char*>(slice.begin()), slice.size());
  for (const char* name : {"mneme.v1.SessionService", "mneme.v1.InferenceService",
                           "mneme.v1.AdminService", "grpc.health.v1.Health"}) {
    EXPECT_THAT(text, HasSubstr(name));
  }
  context.TryCancel();
  grpc::Status status;
  stream->Finish(&status, nullptr);
  next();
  queue.Shutdown();
}

}  // namespace
}  // namespace mneme
