#ifndef MNEME_SERVER_CONVERT_ADMIN_H_
#define MNEME_SERVER_CONVERT_ADMIN_H_

// What the server and its model are, for the wire.

#include "engine/stats.h"
#include "mneme/v1/admin.pb.h"
#include "server/model_description.h"

namespace mneme {

void ToProto(const ModelDescription& model, v1::GetModelInfoResponse* proto);
void ToProto(const TenantLoad& load, v1::TenantLoad* proto);
void ToProto(const EngineLoad& load, v1::GetLoadResponse* proto);

}  // namespace mneme

#endif  // MNEME_SERVER_CONVERT_ADMIN_H_
