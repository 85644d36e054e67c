// Archives' streams whose clients let them wait: they give their place back.

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <thread>

#include "storage/files.h"
#include "storage/spool.h"
#include "tests/server/server_fixture.h"
#include "tests/storage/temporary_directory.h"

namespace mneme {
namespace {

class ArchiveStreamTest : public ServerFixture {
 protected:
  static constexpr uint64_t kMaxBytes = uint64_t{32} << 20;

  ArchiveStreamTest() {
    engine_.options_.slow_reader_limit = absl::Milliseconds(1);
    auto spool = Spool::Create(RealFileSystem(), directory_ / "spool", kMaxBytes);
    EXPECT_TRUE(spool.ok()) << spool.status();
    engine_.archive_ = std::make_shared<ArchiveFile>(*std::move(spool), io_);
  }
  absl::Status Fill(uint64_t bytes) {
    std::promise<absl::Status> filled;
    engine_.archive_->Append(engine_.archive_->size_bytes(), std::string(bytes, 'x'),
                             [&filled](const absl::Status& status) { filled.set_value(status); });
    return filled.get_future().get();
  }
  // Until no stream has the archive any more.
  void AwaitGivenBack() const {
    while (engine_.archive_.use_count() > 1) std::this_thread::yield();
  }

  const TemporaryDirectory directory_;
  const std::shared_ptr<IoThread> io_ = std::make_shared<IoThread>();
  grpc::ClientContext context_;
};

TEST_F(ArchiveStreamTest, AnExportThatNobodyReadsEnds) {
  ASSERT_TRUE(Fill(uint64_t{16} << 20).ok());  // beyond what the transport buffers
  v1::ExportSessionRequest request;
  request.set_session_id("s");
  const auto stream = sessions_->ExportSession(&context_, request);
  while (engine_.archives_lent() == 0) std::this_thread::yield();
  AwaitGivenBack();
  v1::ExportSessionResponse piece;
  uint64_t bytes = 0;
  while (stream->Read(&piece)) bytes += piece.data().size();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_LT(bytes, uint64_t{16} << 20);
  EXPECT_TRUE(StillServes());
}

TEST_F(ArchiveStreamTest, AnImportOfWhichNothingMoreComesEnds) {
  v1::Session session;
  const auto stream = sessions_->ImportSession(&context_, &session);
  v1::ImportSessionRequest message;
  message.set_data("the beginning");
  stream->Write(message);  // which may come too late already
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitGivenBack();
  EXPECT_TRUE(StillServes());
}

TEST_F(ArchiveStreamTest, WhatTheDiskOrTheLimitRefusesIsToldAsThat) {
  engine_.options_.slow_reader_limit = absl::Minutes(1);
  EXPECT_TRUE(absl::IsResourceExhausted(Fill(kMaxBytes + 1)));
  v1::Session session;
  const auto stream = sessions_->ImportSession(&context_, &session);
  v1::ImportSessionRequest message;
  message.set_data("more");
  EXPECT_TRUE(stream->Write(message));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_REQUEST_TOO_LARGE);
  EXPECT_FALSE(DetailOf(status).retryable());
}

}  // namespace
}  // namespace mneme
