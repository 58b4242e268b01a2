//! What the programs' calls need of the stack. Kernels before 6.6 allow 512 bytes for a whole chain of calls, of which each frame takes a
//! multiple of 32 (`check_max_stack_depth` of their verifier), and the machine that builds has a newer one.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

const ROOM: u64 = 512;
const STEP: u64 = 32;

#[derive(Debug, Default)]
struct Function {
    frame: u64,
    calls: Vec<String>,
}

/// Fails when a chain of calls in the disassembly (`llvm-objdump -d -r`) needs more than old kernels allow, and names it.
pub(super) fn check(disassembly: &str) -> Result<()> {
    let functions = read(disassembly);
    for name in functions.keys() {
        let (need, chain) = deepest(&functions, name);
        ensure!(
            need <= ROOM,
            "{} need {need} bytes of stack, and kernels before 6.6 allow {ROOM}: make a frame smaller",
            chain.join(" -> ")
        );
    }
    Ok(())
}

fn read(disassembly: &str) -> BTreeMap<String, Function> {
    let mut functions: BTreeMap<String, Function> = BTreeMap::new();
    let mut current = String::new();
    for line in disassembly.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, name] = words[..]
            && let Some(name) = name.strip_prefix('<').and_then(|n| n.strip_suffix(">:"))
        {
            name.clone_into(&mut current);
            functions.entry(current.clone()).or_default();
            continue;
        }
        let Some(function) = functions.get_mut(&current) else { continue };
        if let Some(at) = words.iter().position(|word| *word == "R_BPF_64_32") {
            function.calls.extend(words.get(at + 1).map(|name| (*name).to_owned()));
        }
        function.frame = function.frame.max(depth(line));
    }
    functions
}

/// How far down a line of code reaches: `*(u64 *)(r10 - 0x8) = r1`, or an address made of r10 and a negative number, `r2 += -0x8`. Greater
/// ones are no addresses.
fn depth(line: &str) -> u64 {
    let made = || line.split_once(" += -0x").filter(|(before, _)| before.contains(" r") || before.contains("\tr"));
    let used = line.split_once("r10 - 0x").or_else(made);
    let digits = used.and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_hexdigit()).next()).unwrap_or_default();
    u64::from_str_radix(digits, 16).ok().filter(|depth| *depth <= ROOM).unwrap_or(0)
}

/// The stack that a function needs with whatever it calls, and that chain of calls.
fn deepest<'f>(functions: &'f BTreeMap<String, Function>, name: &'f str) -> (u64, Vec<&'f str>) {
    let Some(function) = functions.get(name) else { return (0, vec![]) };
    let below = function.calls.iter().map(|callee| deepest(functions, callee)).max_by_key(|(need, _)| *need);
    let (need, chain) = below.unwrap_or_default();
    (need + function.frame.max(1).next_multiple_of(STEP), [vec![name], chain].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "
0000000000000000 <leaf>:
       0:	*(u64 *)(r10 - 0x88) = r1
0000000000000010 <middle>:
       2:	r2 = r10
       3:	r2 += -0xa1
       4:	call -0x1
		0000000000000020:  R_BPF_64_32	leaf
0000000000000030 <program>:
       6:	r1 = *(u64 *)(r10 - 0x40)
       7:	call -0x1
		0000000000000038:  R_BPF_64_32	middle
       8:	call 0x1
		0000000000000040:  R_BPF_64_64	flows
";

    #[test]
    fn the_deepest_chain_is_found() {
        let functions = read(CODE);
        assert_eq!(deepest(&functions, "leaf"), (160, vec!["leaf"]));
        assert_eq!(deepest(&functions, "program"), (160 + 192 + 64, vec!["program", "middle", "leaf"]));
        check(CODE).unwrap();
    }

    #[test]
    fn too_deep_a_chain_is_named() {
        let error = check(&CODE.replace("r10 - 0x40", "r10 - 0xb0")).unwrap_err().to_string();
        assert!(error.contains("program -> middle -> leaf need 544 bytes"), "{error}");
    }
}
