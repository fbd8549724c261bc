import { clone, isMessage, type DescMessage, type Message } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import type { Interceptor } from "@connectrpc/connect";

/** Accepts camel-case names in update masks ("lastName") and converts them to the schema's ("last_name"). */
export const snakeCaseMasks: Interceptor = (next) => (call) => {
  if (call.stream || !("updateMask" in call.message) || !isMessage(call.message.updateMask, FieldMaskSchema)) return next(call);
  const message = clone<DescMessage>(call.method.input, call.message) as Message & { updateMask: { paths: string[] } };
  message.updateMask.paths = message.updateMask.paths.map((path) => path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
  return next({ ...call, message });
};
