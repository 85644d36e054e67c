// On whose behalf a call is made.

#include "tests/server/server_fixture.h"

namespace mneme {
namespace {

// The tenant that the engine sees if the metadata says `named`.
class TenantTest : public ServerFixture {
 protected:
  using ServerFixture::ServerFixture;

  std::string TenantSeen(const std::string& named) {
    grpc::ClientContext context;
    if (!named.empty()) context.AddMetadata("mneme-tenant", named);
    v1::GenerateRequest request;
    request.set_session_id("s");
    request.mutable_token_ids()->add_ids(1);
    const auto stream = inference_->Generate(&context, request);
    const AcceptedRequest accepted = engine_.NextRequest();
    accepted.channel->PushEvent(RequestEnd{absl::OkStatus()});
    v1::GenerateEvent event;
    while (stream->Read(&event)) {
    }
    EXPECT_TRUE(stream->Finish().ok());
    return accepted.generate->header.session.tenant;
  }
};

class TrustingTest : public TenantTest {
 protected:
  TrustingTest() : TenantTest(/*trust_tenant_metadata=*/true) {}
};

TEST_F(TenantTest, WhatCallersSayOfThemselvesDoesNotCount) {
  EXPECT_EQ(TenantSeen("alice"), "default");
  EXPECT_EQ(TenantSeen(""), "default");
}

TEST_F(TrustingTest, AFrontThatIsTrustedNamesTheTenant) {
  EXPECT_EQ(TenantSeen("alice"), "alice");
  EXPECT_EQ(TenantSeen(""), "default");
  EXPECT_EQ(TenantSeen("two words"), "two words") << "the engine refuses it";
}

}  // namespace
}  // namespace mneme
