// Sessions go from one server to another over the wire.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "client/client.h"
#include "client/console.h"
#include "client/interrupter.h"
#include "tests/e2e/real_server.h"
#include "tests/engine/loop_harness.h"
#include "tests/storage/temporary_directory.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "tests/golden/qwen3-hidden-target";

struct Exported {
  grpc::Status status;
  std::string bytes, archive_id;
  uint64_t size_bytes = 0;
};

class ArchiveServerTest : public ::testing::Test {
 protected:
  ArchiveServerTest() {
    EXPECT_TRUE(here_.Create("s").ok());
    EXPECT_TRUE(here_.Append({IdsMessage(RandomTokens(100, 1), "s")}).status.ok());
    EXPECT_TRUE(here_.Generate(GreedyMessage("s", 20)).status.ok());
  }
  // Whatever happened, the servers go on.
  ~ArchiveServerTest() override {
    EXPECT_TRUE(here_.StillServes());
    EXPECT_TRUE(there_.StillServes());
  }

  static Exported Export(RealServer& server, const std::string& id, uint64_t offset = 0,
                         const std::string& archive_id = "") {
    v1::ExportSessionRequest request;
    request.set_session_id(id);
    request.set_offset(offset);
    request.set_archive_id(archive_id);
    grpc::ClientContext context;
    const auto stream = server.sessions().ExportSession(&context, request);
    Exported exported;
    v1::ExportSessionResponse piece;
    while (stream->Read(&piece)) {
      exported.bytes += piece.data();
      if (piece.archive_id().empty()) continue;
      exported.archive_id = piece.archive_id();
      exported.size_bytes = piece.size_bytes();
    }
    exported.status = stream->Finish();
    return exported;
  }

  static grpc::Status Import(RealServer& server, const std::string& id, const std::string& bytes,
                             v1::Session* session) {
    grpc::ClientContext context;
    const auto stream = server.sessions().ImportSession(&context, session);
    for (size_t at = 0; at < bytes.size() || at == 0; at += 77) {
      v1::ImportSessionRequest message;
      if (at == 0) message.set_session_id(id);
      message.set_data(bytes.substr(at, 77));
      if (!stream->Write(message)) break;
    }
    stream->WritesDone();
    return stream->Finish();
  }

  // The program's exit code; what it printed goes to `out`.
  static int RunMneme(const RealServer& server, const std::vector<std::string>& arguments,
                      std::string* out) {
    const std::string address = server.address();
    std::vector<const char*> argv = {"mneme", "--server", address.c_str()};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in;
    std::ostringstream output;
    Console console{.in = in, .out = output, .err = output, .clock_s = [] { return 0.0; }};
    Interrupter interrupter([] {});
    const int code = RunClient(static_cast<int>(argv.size()), argv.data(), console, interrupter);
    *out = output.str();
    return code;
  }

  const TemporaryDirectory here_dir_, there_dir_, files_;
  RealServer here_{kModel, nullptr, here_dir_.path()};
  RealServer there_{kModel, nullptr, there_dir_.path()};
  v1::Session session_;
};

TEST_F(ArchiveServerTest, AnImportedSessionGoesOnLikeTheOriginal) {
  const Exported archive = Export(here_, "s");
  ASSERT_TRUE(archive.status.ok()) << archive.status.error_message();
  EXPECT_EQ(archive.bytes.size(), archive.size_bytes);
  const grpc::Status status = Import(there_, "t", archive.bytes, &session_);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(session_.session_id(), "t");
  EXPECT_EQ(session_.position(), 120U);
  EXPECT_EQ(there_.Generate(GreedyMessage("t", 30)).ids,
            here_.Generate(GreedyMessage("s", 30)).ids);
}

TEST_F(ArchiveServerTest, AnExportGoesOnAtAnOffset) {
  const Exported whole = Export(here_, "s");
  const Exported rest = Export(here_, "s", 100, whole.archive_id);
  ASSERT_TRUE(rest.status.ok()) << rest.status.error_message();
  EXPECT_EQ(rest.bytes, whole.bytes.substr(100));
  EXPECT_EQ(rest.size_bytes, whole.size_bytes);
  const Exported nothing = Export(here_, "s", whole.size_bytes, whole.archive_id);
  EXPECT_TRUE(nothing.status.ok());
  EXPECT_EQ(nothing.archive_id, whole.archive_id);
  EXPECT_EQ(Export(here_, "s", 100).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Export(here_, "s", whole.size_bytes + 1, whole.archive_id).status.error_code(),
            grpc::StatusCode::OUT_OF_RANGE);
  ASSERT_TRUE(here_.Append({IdsMessage({1}, "s")}).status.ok());
  EXPECT_EQ(Export(here_, "s", 100, whole.archive_id).status.error_code(),
            grpc::StatusCode::ABORTED);
  EXPECT_EQ(Export(here_, "nobody").status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Export(here_, "").status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ArchiveServerTest, WhatIsNoWholeArchiveIsRefused) {
  const std::string archive = Export(here_, "s").bytes;
  std::string flipped = archive;
  flipped[flipped.size() / 2] ^= 1;
  for (const std::string& bytes :
       {std::string("x"), flipped, archive.substr(0, archive.size() - 1), archive + "x"}) {
    const grpc::Status status = Import(there_, "t", bytes, &session_);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS) << status.error_message();
    EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_DATA_LOSS);
  }
  EXPECT_EQ(Import(there_, "a b", archive, &session_).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(there_.Create("t").ok());
  EXPECT_EQ(Import(there_, "t", archive, &session_).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  RealServer in_memory(kModel);
  const grpc::Status status = Import(in_memory, "t", archive, &session_);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("--data_dir"));
}

TEST_F(ArchiveServerTest, ACancelledImportLeavesNothing) {
  const std::string archive = Export(here_, "s").bytes;
  {
    grpc::ClientContext context;
    const auto stream = there_.sessions().ImportSession(&context, &session_);
    v1::ImportSessionRequest message;
    message.set_session_id("t");
    message.set_data(archive.substr(0, archive.size() / 2));
    EXPECT_TRUE(stream->Write(message));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_EQ(Export(there_, "t").status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(Import(there_, "t", archive, &session_).ok());
}

TEST_F(ArchiveServerTest, TheProgramTakesASessionFromServerToServer) {
  std::string out;
  const std::string file = files_ / "s.mneme";
  ASSERT_EQ(RunMneme(here_, {"sessions", "export", "s", file}, &out), 0) << out;
  std::ifstream in(file, std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), Export(here_, "s").bytes);
  ASSERT_EQ(RunMneme(there_, {"sessions", "import", file, "t"}, &out), 0) << out;
  EXPECT_THAT(out, HasSubstr("import 100%"));
  EXPECT_EQ(there_.PositionOf("t"), 120U);
}

}  // namespace
}  // namespace mneme
