//! Downloads from a server of this process, which can do what servers on the way do: break off, ignore ranges, send something
//! else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use clap::Parser;
use safetensors::{Dtype, tensor::TensorView};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::zoo::published::PUBLISHED;
use crate::zoo::weights::random;

/// One answer: a head without its first line's protocol, and a body, which may be shorter than the head says.
struct Answer {
    head: String,
    body: Vec<u8>,
}

fn answer(head: &str, body: &[u8]) -> Answer {
    Answer { head: head.to_owned(), body: body.to_vec() }
}

/// Serves `answers`, one a connection. The receiver gets each request's first line and its `Range`.
fn serve(answers: Vec<Answer>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    thread::spawn(move || {
        for Answer { head, body } in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let range = request.iter().find(|line| line.to_ascii_lowercase().starts_with("range:"));
            let range = range.map_or(String::new(), |range| format!(" {}", &range["range:".len()..].trim()));
            sender.send(format!("{}{range}", request[0])).unwrap();
            // A client may hang up before it has read everything.
            let _ = write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
    (address, requests)
}

const MAX_BYTES: u64 = 1_000_000;

fn content() -> Vec<u8> {
    (0..200_000u32).flat_map(u32::to_le_bytes).collect()
}

fn digest(bytes: &[u8]) -> String {
    crate::sha256::hex(&Sha256::digest(bytes))[..8].to_owned()
}

fn ok(bytes: &[u8]) -> Answer {
    answer(&format!("200 OK\r\nContent-Length: {}", bytes.len()), bytes)
}

fn part(bytes: &[u8], start: usize) -> Answer {
    let (rest, end, total) = (&bytes[start..], bytes.len() - 1, bytes.len());
    let range = format!("Content-Range: bytes {start}-{end}/{total}\r\nContent-Length: {}", rest.len());
    answer(&format!("206 Partial Content\r\n{range}"), rest)
}

/// Downloads `/file` from a server with `answers`, as often as there are `results`, and gives the requests that it saw. An empty
/// result is success, another one is found in the error.
fn download(folder: &TempDir, answers: Vec<Answer>, digest: &str, results: &[&str]) -> Vec<String> {
    let (address, requests) = serve(answers);
    let path = folder.path().join("sub/file");
    for &expected in results {
        match download::fetch(&format!("{address}/file"), &path, digest, MAX_BYTES) {
            Ok(()) => assert_eq!(expected, ""),
            Err(error) => {
                let error = format!("{error:#}");
                assert!(!expected.is_empty() && error.contains(expected), "{error}");
            }
        }
    }
    requests.try_iter().collect()
}

fn files(folder: &TempDir) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder.path().join("sub")).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn a_file_is_downloaded_once() {
    let (folder, content) = (TempDir::new().unwrap(), content());
    let requests = download(&folder, vec![ok(&content)], &digest(&content), &["", ""]);
    assert_eq!(requests, ["GET /file HTTP/1.1"]);
    assert_eq!(files(&folder), BTreeMap::from([("file".to_owned(), content)]));
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_ended() {
    let (folder, content) = (TempDir::new().unwrap(), content());
    let mut broken = ok(&content);
    broken.body.truncate(300_000);
    let results = ["the download broke off after 300000 of 800000 bytes", ""];
    let requests = download(&folder, vec![broken, part(&content, 300_000)], &digest(&content), &results);
    assert_eq!(requests, ["GET /file HTTP/1.1", "GET /file HTTP/1.1 bytes=300000-"]);
    assert_eq!(files(&folder), BTreeMap::from([("file".to_owned(), content)]));
}

#[test]
fn servers_that_do_not_know_ranges_send_everything_again() {
    let content = content();
    let other_part = vec![part(&content, 100_000), ok(&content)];
    for second in [vec![ok(&content)], other_part] {
        let folder = TempDir::new().unwrap();
        let mut answers = vec![ok(&content)];
        answers[0].body.truncate(300_000);
        answers.extend(second);
        let count = answers.len();
        let requests = download(&folder, answers, &digest(&content), &["the download broke off", ""]);
        assert_eq!(requests.len(), count);
        assert_eq!(requests[1], "GET /file HTTP/1.1 bytes=300000-");
        assert_eq!(files(&folder), BTreeMap::from([("file".to_owned(), content.clone())]));
    }
}

#[test]
fn a_whole_part_that_was_not_yet_renamed_is_enough() {
    let (folder, content) = (TempDir::new().unwrap(), content());
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/file.part"), &content).unwrap();
    let nothing_more = || answer("416 Range Not Satisfiable\r\nContent-Length: 0", b"");
    download(&folder, vec![nothing_more()], &digest(&content), &[""]);
    assert_eq!(files(&folder), BTreeMap::from([("file".to_owned(), content.clone())]));

    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/file.part"), vec![7; 900_000]).unwrap();
    let requests = download(&folder, vec![nothing_more(), ok(&content)], &digest(&content), &[""]);
    assert_eq!(requests, ["GET /file HTTP/1.1 bytes=900000-", "GET /file HTTP/1.1"]);
    assert_eq!(files(&folder), BTreeMap::from([("file".to_owned(), content)]));
}

#[test]
fn what_has_another_hash_is_removed() {
    let (folder, content) = (TempDir::new().unwrap(), content());
    let page = b"<html>Please log in to the network</html>";
    let results = ["is not what its name says: its SHA-256 is", ""];
    let requests = download(&folder, vec![ok(page), ok(&content)], &digest(&content), &results);
    assert_eq!(requests, ["GET /file HTTP/1.1", "GET /file HTTP/1.1"]);

    // And a file that was damaged later is not used.
    fs::write(folder.path().join("sub/file"), b"short").unwrap();
    download(&folder, vec![], &digest(&content), &["file is damaged: its SHA-256 is"]);
}

#[test]
fn what_is_too_large_is_not_kept() {
    let (folder, content) = (TempDir::new().unwrap(), content());
    let declared = answer(&format!("200 OK\r\nContent-Length: {}", u64::MAX - 1), b"");
    let endless = answer("200 OK", &content.repeat(2));
    let results = ["it has more than 1000000 bytes", "it has more than 1000000 bytes"];
    download(&folder, vec![declared, endless], &digest(&content), &results);
    assert!(files(&folder).is_empty());
}

#[test]
fn an_answer_that_is_no_file_is_told_and_leaves_no_content() {
    let folder = TempDir::new().unwrap();
    let missing = answer("404 Not Found\r\nContent-Length: 9", b"not found");
    download(&folder, vec![missing], "00000000", &["/file answered 404 Not Found"]);
    assert_eq!(files(&folder), BTreeMap::from([("file.part".to_owned(), vec![])]));
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    pull: PullArgs,
}

#[test]
fn a_mirrors_checkpoint_becomes_a_model() {
    let folder = TempDir::new().unwrap();
    let squeezenet = Architecture::find("squeezenet1_1").unwrap();
    let tensors: BTreeMap<_, _> = squeezenet
        .graph(1000)
        .parameters()
        .map(|it| {
            let bytes =
                random::values(1, &it.key, &it.shape).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>();
            (it.key, (it.shape, bytes))
        })
        .collect();
    let views =
        tensors.iter().map(|(key, (shape, bytes))| (key, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let checkpoint = safetensors::serialize(views, None).unwrap();
    let file: &'static str = format!("squeezenet-{}.pth", digest(&checkpoint)).leak();
    let (address, requests) = serve(vec![ok(&checkpoint)]);
    let output = folder.path().join("model/1/model.onnx");
    let arguments = ["pull", "squeezenet1_1", "--output", output.to_str().unwrap()];
    let args = Cli::try_parse_from(arguments).unwrap().pull;
    let published = PUBLISHED.iter().find(|it| it.architecture == "squeezenet1_1").unwrap();
    let published = Published { file: Some(file), ..*published };

    pull(&published, &format!("{address}/mirror/"), folder.path(), &args.target).unwrap();
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), [format!("GET /mirror/{file} HTTP/1.1")]);
    let model = crate::onnx::read_model(&output).unwrap();
    assert_eq!(model.metadata_props[1].value, file);
    let config = fs::read_to_string(folder.path().join("model/config.toml")).unwrap();
    assert!(config.contains("resize = 256") && config.contains("SqueezeNet"), "{config}");
}

#[test]
fn the_command_says_which_file_a_mirror_lacks() {
    let folder = TempDir::new().unwrap();
    let (address, _requests) = serve(vec![answer("404 Not Found\r\nContent-Length: 0", b"")]);
    let cache = folder.path().to_str().unwrap();
    let arguments = ["pull", "resnet50:IMAGENET1K_V2", "--mirror", &address, "--cache", cache];
    let error = run(&Cli::try_parse_from(arguments).unwrap().pull).unwrap_err();
    assert_eq!(error.to_string(), format!("{address}/resnet50-11ad3fa6.pth answered 404 Not Found"));
}
