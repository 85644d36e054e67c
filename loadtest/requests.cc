#include "loadtest/requests.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace mneme {
namespace {

// The byte after the word that `words` words from `begin` on end with.
size_t EndOfWords(const std::string& text, size_t begin, int64_t words) {
  size_t end = begin;
  for (; words > 0 && end < text.size(); --words) end = text.find(' ', end) + 1;
  return end;
}

void AddTextPieces(const std::string& text, int64_t piece_words,
                   std::vector<v1::AppendRequest>& pieces) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = EndOfWords(text, begin, piece_words);
    pieces.emplace_back().set_text(text.substr(begin, end - begin));
    begin = end;
  }
}

void AddIdPieces(const std::vector<uint32_t>& ids, int64_t piece_ids,
                 std::vector<v1::AppendRequest>& pieces) {
  for (auto begin = ids.begin(); begin != ids.end();) {
    const auto end = begin + std::min<int64_t>(piece_ids, ids.end() - begin);
    pieces.emplace_back().mutable_token_ids()->mutable_ids()->Add(begin, end);
    begin = end;
  }
}

}  // namespace

v1::GenerateRequest MakeGenerate(const LoadOptions& options, const Arrival& arrival, size_t index,
                                 uint32_t vocab_size, const std::string& session_id) {
  const RequestPlan& plan = arrival.requests[index];
  v1::GenerateRequest request;
  request.set_session_id(session_id);
  request.set_request_id(RequestId(session_id, index));
  if (options.text) {
    request.set_text(InputText(arrival, index));
  } else {
    const std::vector<uint32_t> ids = InputIds(arrival, index, vocab_size);
    request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  request.mutable_sampling()->set_temperature(arrival.checked ? 0 : 1);
  request.mutable_sampling()->set_seed(arrival.seed);
  request.set_max_tokens(static_cast<uint32_t>(plan.output_tokens));
  request.set_ignore_eos(true);
  return request;
}

std::vector<v1::AppendRequest> MakeAppend(const LoadOptions& options, const Arrival& arrival,
                                          uint32_t vocab_size, const std::string& session_id) {
  std::vector<v1::AppendRequest> pieces;
  if (options.text) {
    AddTextPieces(InputText(arrival, 0), options.piece_tokens, pieces);
  } else {
    AddIdPieces(InputIds(arrival, 0, vocab_size), options.piece_tokens, pieces);
  }
  pieces.front().set_session_id(session_id);
  pieces.front().set_request_id(RequestId(session_id, 0));
  return pieces;
}

std::string RequestId(const std::string& session_id, size_t index) {
  return absl::StrCat(session_id, "-", index);
}

}  // namespace mneme
