#include "engine/session/request_records.h"

#include <algorithm>
#include <utility>

namespace mneme {
namespace {

int64_t SizeOfRecord(const RequestRecord& record) {
  size_t bytes = sizeof record + record.id.size() + record.append_logprobs.size() * sizeof(float);
  for (const RecordedLogProbs& probs : record.generated_logprobs) {
    bytes += sizeof probs + probs.top.size() * sizeof(TokenLogProb);
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace

std::shared_ptr<RequestRecord> RequestRecords::Find(const std::string& id) const {
  const auto found = std::find_if(records_.rbegin(), records_.rend(),
                                  [&id](const auto& record) { return record->id == id; });
  return found == records_.rend() ? nullptr : *found;
}

void RequestRecords::Add(std::shared_ptr<RequestRecord> record) {
  records_.push_back(std::move(record));
  if (records_.size() > kMaxRecords) records_.erase(records_.begin());
}

void RequestRecords::ForgetBehind(int64_t position) {
  std::erase_if(records_,
                [position](const auto& record) { return record->end_position > position; });
}

int64_t RequestRecords::size_bytes() const {
  int64_t bytes = 0;
  for (const auto& record : records_) bytes += SizeOfRecord(*record);
  return bytes;
}

}  // namespace mneme
