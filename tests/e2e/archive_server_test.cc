// Sessions go from one server to another over the wire.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
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

  // Begins a stream of an import, with what comes behind the first `offset` bytes up to `end`.
  static std::unique_ptr<grpc::ClientWriter<v1::ImportSessionRequest>> StartImport(
      RealServer& server, grpc::ClientContext* context, v1::ImportSessionRequest first,
      const std::string& bytes, size_t end, v1::Session* session) {
    auto stream = server.sessions().ImportSession(context, session);
    for (size_t at = first.offset(); at < end || first.has_import_id(); at += 999) {
      first.set_data(at < end ? bytes.substr(at, std::min<size_t>(999, end - at)) : "");
      if (!stream->Write(first)) break;
      first.Clear();
    }
    return stream;
  }
  static v1::ImportSessionRequest First(const std::string& id, const std::string& import_id,
                                        uint64_t offset) {
    v1::ImportSessionRequest first;
    first.set_session_id(id);
    first.set_import_id(import_id);
    first.set_offset(offset);
    return first;
  }
  // The rest of an import, to its end.
  static grpc::Status Resume(RealServer& server, const v1::ImportSessionRequest& first,
                             const std::string& bytes, v1::Session* session) {
    grpc::ClientContext context;
    const auto stream = StartImport(server, &context, first, bytes, bytes.size(), session);
    stream->WritesDone();
    return stream->Finish();
  }
  // How much the server has of an import.
  static uint64_t Held(RealServer& server, const std::string& id, const std::string& import_id) {
    v1::Session session;
    const grpc::Status status =
        Resume(server, First(id, import_id, UINT64_MAX), std::string(), &session);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::OUT_OF_RANGE) << status.error_message();
    EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_OFFSET_MISMATCH);
    return DetailOf(status).offset();
  }
  // Sends the first `end` bytes, and cuts the stream when the server has them.
  static void BreakOff(RealServer& server, const std::string& id, const std::string& import_id,
                       const std::string& bytes, size_t end) {
    grpc::ClientContext context;
    v1::Session session;
    const auto stream =
        StartImport(server, &context, First(id, import_id, 0), bytes, end, &session);
    while (Held(server, id, import_id) < end) {
    }
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
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

TEST_F(ArchiveServerTest, AnImportThatBrokeOffGoesOnAtItsOffset) {
  const std::string archive = Export(here_, "s").bytes;
  ASSERT_TRUE(Import(there_, "unbroken", archive, &session_).ok());
  const std::vector<int32_t> expected = there_.Generate(GreedyMessage("unbroken", 30)).ids;
  const size_t size = archive.size();
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{500}, size / 2, size - 1, size}) {
    const std::string id = "cut-" + std::to_string(cut);
    BreakOff(there_, id, "import", archive, cut);
    v1::ImportSessionRequest first = First(id, "import", cut);
    first.set_offset_xxh3(XXH3_64bits(archive.data(), cut));
    const grpc::Status status = Resume(there_, first, archive, &session_);
    ASSERT_TRUE(status.ok()) << cut << ": " << status.error_message();
    EXPECT_EQ(session_.session_id(), id);
    EXPECT_EQ(session_.position(), 120U);
    EXPECT_EQ(there_.Generate(GreedyMessage(id, 30)).ids, expected);
    EXPECT_EQ(Resume(there_, first, archive, &session_).error_code(),
              grpc::StatusCode::ALREADY_EXISTS);
  }
}

TEST_F(ArchiveServerTest, WhatDoesNotGoOnWithAnImportIsRefused) {
  const std::string archive = Export(here_, "s").bytes;
  BreakOff(there_, "t", "import", archive, 300);
  const auto refused = [&](const v1::ImportSessionRequest& first) {
    const grpc::Status status = Resume(there_, first, archive, &session_);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    return DetailOf(status).reason();
  };
  EXPECT_EQ(refused(First("other", "import", 300)), v1::ERROR_REASON_REQUEST_ID_REUSED);
  v1::ImportSessionRequest changed = First("t", "import", 300);
  changed.set_offset_xxh3(7);
  EXPECT_EQ(refused(changed), v1::ERROR_REASON_REQUEST_ID_REUSED);
  EXPECT_EQ(refused(First("t", "a b", 0)), v1::ERROR_REASON_INVALID_FIELD);
  v1::ImportSessionRequest nameless;
  nameless.set_offset(300);
  EXPECT_EQ(refused(nameless), v1::ERROR_REASON_INVALID_FIELD);
  EXPECT_EQ(Held(there_, "t", "import"), 300U) << "it is kept";
  // Other bytes than those that were to come.
  std::string other = archive;
  other[other.size() - 40] ^= 1;
  EXPECT_EQ(Resume(there_, First("t", "import", 300), other, &session_).error_code(),
            grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(Held(there_, "t", "import"), 0U) << "that is no archive";
  EXPECT_TRUE(Resume(there_, First("t", "import", 0), archive, &session_).ok());
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
