// Stands in the bundles for what protobuf needs to write binary messages and to read
// extensions: the pages send JSON, and no message of ours has extensions. See build.mjs.

const absent = (): never => {
  throw new Error("the pages send JSON, without extensions");
};

export { absent as clearExtension, absent as createExtensionContainer, absent as getExtension, absent as getOption, absent as hasExtension, absent as hasOption, absent as setExtension, absent as toBinary, absent as writeField };
