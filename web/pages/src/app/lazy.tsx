import { h, type ComponentChildren, type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ErrorState, Skeleton } from "../ui/feedback.js";
import { problemOf, type Problem } from "./problem.js";
import type { Params } from "./router.js";

/**
 * Returns a page, or a part of one, whose script is loaded when it first opens, so that the other pages open sooner.
 * `frame` is drawn around what stands for the page until then, and around the problem if it
 * could not be loaded.
 */
export function lazy<P extends object = Params>(load: () => Promise<ComponentType<P>>, frame: (content: ComponentChildren, failed: boolean) => ComponentChildren = (content) => content): ComponentType<P> {
  let loaded: ComponentType<P> | undefined;
  return function Lazy(given: P) {
    const [Page, setPage] = useState<ComponentType<P> | undefined>(() => loaded);
    const [problem, setProblem] = useState<Problem>();
    useEffect(() => {
      if (loaded) return;
      load().then(
        (page) => {
          loaded = page;
          setPage(() => page);
        },
        (thrown: unknown) => setProblem(problemOf(thrown)),
      );
    }, []);
    if (Page) return h(Page, given);
    // The gateway may have been replaced: the page as a whole is loaded again.
    return <>{frame(problem ? <ErrorState problem={problem} retry={() => location.reload()} /> : <Skeleton lines={6} />, problem !== undefined)}</>;
  };
}
