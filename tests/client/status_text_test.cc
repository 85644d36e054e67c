#include "client/status_text.h"

#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include "mneme/v1/errors.pb.h"

namespace mneme {
namespace {

grpc::Status WithDetail(const v1::ErrorDetail& detail) {
  v1::RpcStatus status;
  status.add_details()->PackFrom(detail);
  return {grpc::StatusCode::ABORTED, "the session moved", status.SerializeAsString()};
}

TEST(StatusTextTest, NamesTheStatusAndItsMessage) {
  EXPECT_EQ(StatusText(FromRpc({grpc::StatusCode::UNIMPLEMENTED, "no such call"})),
            "UNIMPLEMENTED: no such call");
  EXPECT_TRUE(FromRpc(grpc::Status::OK).ok());
}

TEST(StatusTextTest, AddsWhatTheDetailSays) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ERROR_REASON_VERSION_MISMATCH);
  detail.set_position(0);
  detail.set_version(12);
  detail.set_retryable(true);
  EXPECT_EQ(StatusText(FromRpc(WithDetail(detail))),
            "ABORTED: the session moved (reason VERSION_MISMATCH, position 0, version 12, "
            "retryable)");
}

TEST(StatusTextTest, SaysWhenAndWhereToRetry) {
  v1::ErrorDetail detail;
  detail.mutable_retry_delay()->set_nanos(250'000'000);
  detail.set_owner("10.0.0.7:50051");
  detail.set_field("sampling.top_p");
  EXPECT_EQ(StatusText(FromRpc(WithDetail(detail))),
            "ABORTED: the session moved (field sampling.top_p, owner 10.0.0.7:50051, "
            "retry after 0.25 s)");
}

TEST(StatusTextTest, LeavesOutDetailsThatItCannotRead) {
  EXPECT_EQ(StatusText(FromRpc({grpc::StatusCode::INTERNAL, "broken", "\xff\xff"})),
            "INTERNAL: broken");
}

TEST(StatusTextTest, IsOneLine) {
  EXPECT_EQ(StatusText(absl::InternalError("two\nlines")), "INTERNAL: two lines");
}

}  // namespace
}  // namespace mneme
