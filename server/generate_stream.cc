#include "server/generate_stream.h"

#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "server/convert_inference.h"
#include "server/request_stream.h"

namespace mneme {
namespace {

using Reactor = grpc::ServerWriteReactor<v1::GenerateEvent>;

class GenerateStream final : public RequestStream<Reactor, v1::GenerateEvent> {
 public:
  static Reactor* Start(const ServiceContext& context, grpc::CallbackServerContext& call,
                        const v1::GenerateRequest& request) {
    const auto stream = std::shared_ptr<GenerateStream>(new GenerateStream(context, call, request));
    stream->RequestStream::Start();
    return stream.get();
  }

 private:
  GenerateStream(const ServiceContext& context, grpc::CallbackServerContext& call,
                 const v1::GenerateRequest& request)
      : RequestStream(context, call, "Generate"), request_(request) {
    record_.session_id = request.session_id();
    record_.request_id = request.request_id();
  }

  void StepInput() override {
    if (submitted() || over()) return;
    auto generate = ToGenerateRequest(request_, context_.codec, context_.engine.defaults(),
                                      record_.tenant(), deadline_);
    if (!generate.ok()) return Abort(generate.status());
    record_.tokens_in = static_cast<int64_t>(generate->input.ids.size());
    SetSubmitted();
    context_.engine.Generate(*std::move(generate), channel());
  }

  void ToMessage(const RequestEvent& event, v1::GenerateEvent* message) override {
    if (const auto* token = std::get_if<GeneratedToken>(&event)) {
      ++record_.tokens_out;
      last_token_ = token->id;
      ToProto(*token, context_.codec, message->mutable_token());
    } else {
      ToProto(std::get<Finished>(event), last_token_, context_.codec, message->mutable_finished());
    }
  }

  const v1::GenerateRequest& request_;
  std::optional<int32_t> last_token_;
};

}  // namespace

Reactor* StartGenerate(const ServiceContext& context, grpc::CallbackServerContext& call,
                       const v1::GenerateRequest& request) {
  return GenerateStream::Start(context, call, request);
}

}  // namespace mneme
