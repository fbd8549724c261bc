import { createClient } from "@connectrpc/connect";
import { UserService } from "../../../../clients/typescript/src/gen/bff/v1/user_service_pb.js";
import { gatehouse } from "./client.js";

/** The calls of administrators, with the session of the pages. */
export const users = createClient(UserService, gatehouse.transport);
