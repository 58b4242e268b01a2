pub(crate) fn run(_check: bool) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
